"""Files of one recording, one from each rank: which there are, and that none is missing."""

from __future__ import annotations

from pathlib import Path

from eplb_np.io.contents import Contents


def rank_files(contents: Contents, pattern: str, expected: int | None = None) -> list[Path]:
    """Return the files of a folder whose names match, in the order of their ranks.

    The first group of the pattern is the rank. Raises ``ValueError`` if there are two files of a
    rank, or none of a rank below the highest, or below the number that is expected.
    """
    found: dict[int, str] = {}
    for name, match in contents.named(pattern).items():
        rank = int(match[1])
        if rank in found:
            raise ValueError(f"{found[rank]} and {name} are both of rank {rank}: leave one of them")
        found[rank] = name
    ranks = sorted(found)
    num_ranks = ranks[-1] + 1 if expected is None and ranks else expected or 1
    missing = next((i for i, rank in enumerate(ranks) if i != rank), len(ranks))
    if missing < num_ranks:
        raise ValueError(
            f"there is no file of rank {missing}, of {num_ranks} ranks: copy the files of all "
            "ranks into the folder"
        )
    if len(ranks) > num_ranks:
        raise ValueError(f"there are files of {len(ranks)} ranks, not {num_ranks}")
    return [contents.path / found[rank] for rank in ranks]
