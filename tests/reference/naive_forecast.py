"""The slow twin of `LoadForecast`: the same filter in plain Python, one step after another.

Nothing here comes from ``eplb_np``. It remembers every window's energies and adds with
``math.fsum``, so it agrees with the kernels to rounding, not bit for bit.
"""

from __future__ import annotations

import math
import statistics

Row = list[float]
Rows = list[Row | None]  # None for a layer that has not had any load

RECENT = 16
STORED = 3


def square_sum(a: Row, b: Row) -> float:
    return math.fsum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def fourth_sum(a: Row, b: Row) -> float:
    return math.fsum((x - y) ** 4 for x, y in zip(a, b, strict=True))


def copied(rows: Rows) -> Rows:
    return [None if row is None else list(row) for row in rows]


class NaiveForecast:
    def __init__(self, num_layers: int, num_experts: int) -> None:
        self.num_layers = num_layers
        self.num_experts = num_experts
        self.level: Rows = [None] * num_layers
        self.ahead: Rows = [None] * num_layers
        self.trend = [[0.0] * num_experts for _ in range(num_layers)]
        self.last: Rows = [None] * num_layers
        self.step = [[0.0] * num_experts for _ in range(num_layers)]
        self.totals: list[list[float]] = [[] for _ in range(num_layers)]  # all of them
        self.typical = [0.0] * num_layers
        self.half_steps: list[float] = []
        self.covariances: list[float] = []
        self.gains: list[float] = []
        self.stored: list[tuple[Rows, float]] = []  # oldest first
        self.noise_energy = 0.0
        self.error = 0.0
        self.ahead_error = 0.0
        self.level_score = 0.0
        self.ahead_score = 0.0
        self.use_trend = False
        self.after_change = ""  # "", "believed" or "doubted"
        self.returned = 0
        self.stayed = 0
        self.switched = False
        self.recalled = False

    # What users see.

    def prediction(self) -> Rows:
        return self.ahead if self.use_trend else self.level

    @property
    def load(self) -> list[Row]:
        return [
            [0.0] * self.num_experts if row is None else [share * typical for share in row]
            for row, typical in zip(self.prediction(), self.typical, strict=True)
        ]

    @property
    def noise(self) -> float:
        if not self.half_steps:
            return 0.0
        known = [row for row in self.prediction() if row is not None]
        alike = math.fsum(math.fsum(x * x for x in row) for row in known) / len(known)
        return (self.noise_energy + self.error) / max(1.0 - alike, 1e-9)

    @property
    def turnover(self) -> float:
        if not self.gains:
            return 0.5
        now = self.error / (self.error + self.noise_energy)
        return min(now, statistics.median(self.gains[-RECENT:]))

    # One window.

    def observe(self, window: list[Row]) -> None:
        self.switched = self.recalled = False
        share: dict[int, Row] = {}
        for layer, row in enumerate(window):
            total = math.fsum(row)
            if total > 0:
                share[layer] = [x / total for x in row]
        old = [layer for layer in share if self.level[layer] is not None]
        scale = 1.0
        if old:
            typical = math.fsum(self.typical[layer] for layer in old)
            scale = max(1.0, typical / math.fsum(math.fsum(window[layer]) for layer in old))
        for layer in share:
            total = math.fsum(window[layer])
            self.totals[layer].append(total)
            weight = 1 / min(len(self.totals[layer]), RECENT)
            self.typical[layer] = (1 - weight) * self.typical[layer] + weight * total
        for layer in share.keys() - old:
            for rows in (self.level, self.ahead, self.last, *(rows for rows, _ in self.stored)):
                rows[layer] = list(share[layer])
        share = {layer: share[layer] for layer in old}
        if share:
            self.note_steps(share, scale)
            self.filter(share, scale)

    def note_steps(self, share: dict[int, Row], scale: float) -> None:
        energy = back = 0.0
        for layer, row in share.items():
            change = [x - y for x, y in zip(row, self.last[layer], strict=True)]
            energy += math.fsum(x * x for x in change)
            back -= math.fsum(x * y for x, y in zip(change, self.step[layer], strict=True))
            self.step[layer] = change
            self.last[layer] = list(row)
        if self.half_steps:
            self.covariances.append(back / len(share) / scale)
        self.half_steps.append(energy / 2 / len(share) / scale)

    def surprise(
        self, share: dict[int, Row], rows: Rows, here: float, error: float
    ) -> tuple[float, float]:
        """Mean squared distance, and what of it noise and chance do not explain."""
        squares = math.fsum(square_sum(row, rows[layer]) for layer, row in share.items())
        fourths = math.fsum(fourth_sum(row, rows[layer]) for layer, row in share.items())
        distance = squares / len(share)
        doubt = 2 * math.sqrt(2 / 3 * fourths) / len(share)
        if distance > here + error:
            doubt *= (here + error) / distance
        return distance, distance - here - doubt

    def filter(self, share: dict[int, Row], scale: float) -> None:
        noise = statistics.median(self.half_steps[-RECENT:])
        if self.covariances:
            noise = max(statistics.median(self.covariances[-RECENT:]), 0.5 * noise)
        noise = max(noise, 1e-30)
        here = noise * scale
        if len(self.half_steps) == 1:
            self.error = self.ahead_error = noise
        distance, unexplained = self.surprise(share, self.level, here, self.error)
        ahead_distance, ahead_unexplained = self.surprise(share, self.ahead, here, self.ahead_error)
        error = max(self.error, unexplained)
        if len(self.half_steps) > 2 and error > 2 * self.error + noise / 4:
            if not self.believe_change(share, here, error):
                return
            error = self.error_after_change
        elif self.after_change:
            if self.after_change == "believed":
                self.stayed += 1
            else:
                self.returned += 1
            self.after_change = ""
        gain = error / (error + here)
        self.gains.append(gain)
        self.noise_energy = noise
        self.error = (1 - gain) * error
        for layer, row in share.items():
            level = self.level[layer]
            self.level[layer] = [m + gain * (x - m) for x, m in zip(row, level, strict=True)]
        self.follow_trend(share, distance, ahead_distance, ahead_unexplained, here)

    def believe_change(self, share: dict[int, Row], here: float, error: float) -> bool:
        best = -1
        for i, (rows, stored_error) in enumerate(self.stored):
            theirs = max(stored_error, self.surprise(share, rows, here, stored_error)[1])
            if theirs < error:
                error = theirs
                best = i
        returns = best >= 0 and error <= 2 * self.stored[best][1] + here / 4
        newest = returns and best == len(self.stored) - 1
        before, self.after_change = self.after_change, ""
        if before and newest == (before == "doubted"):
            self.stayed += 1
        elif before:
            self.returned += 1
        sure = before != "" and newest
        if not sure and self.returned > self.stayed:
            self.after_change = "doubted"
            if returns:
                self.stored.append(self.stored.pop(best))
            else:
                odd = copied(self.level)
                for layer, row in share.items():
                    odd[layer] = list(row)
                self.stored.append((odd, here))
                del self.stored[:-STORED]
            return False
        self.switched = True
        self.after_change = "" if sure else "believed"
        kept = (self.level, self.error)
        self.level = copied(self.stored[best][0] if best >= 0 else self.level)
        if returns:
            self.recalled = not (sure and before == "doubted")
            del self.stored[best]
        self.stored.append(kept)
        del self.stored[:-STORED]
        self.error_after_change = error
        return True

    def follow_trend(
        self,
        share: dict[int, Row],
        distance: float,
        ahead_distance: float,
        unexplained: float,
        here: float,
    ) -> None:
        error = max(self.ahead_error, unexplained)
        gain = error / (error + here)
        self.level_score = 0.85 * self.level_score + 0.15 * min(distance / here, 4)
        self.ahead_score = 0.85 * self.ahead_score + 0.15 * min(ahead_distance / here, 4)
        if self.switched or gain > 0.6:
            self.trend = [[0.0] * self.num_experts for _ in range(self.num_layers)]
            self.ahead = copied(self.level)
            self.ahead_error = self.error
            self.ahead_score = self.level_score
            self.use_trend = False
            return
        self.ahead_error = (1 - gain) * error
        self.use_trend = self.ahead_score < self.level_score - 0.01
        for layer, row in share.items():
            surprise = [x - m for x, m in zip(row, self.ahead[layer], strict=True)]
            self.trend[layer] = [
                t + 0.1 * gain * s for t, s in zip(self.trend[layer], surprise, strict=True)
            ]
            level = [m + gain * s for m, s in zip(self.ahead[layer], surprise, strict=True)]
            moved = [max(m + t, 0.2 * m) for m, t in zip(level, self.trend[layer], strict=True)]
            total = math.fsum(moved)
            self.ahead[layer] = [m / total for m in moved]
