"""Pages of HTML that need nothing but themselves: no script, no font, no file from elsewhere."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from eplb_np.pictures import description
from eplb_np.pictures.files import drawn
from eplb_np.pictures.themes import THEMES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE_DPI = 96  # pixels of a page for each inch
LIGHT, DARK = THEMES["light"], THEMES["dark"]

# The page may load nothing at all, whatever a file smuggled into it.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"

ICON = (
    "data:image/svg+xml;base64,"
    + b64encode(
        b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">'
        b'<path fill="#0072b2" d="M1 9h3v6H1z"/><path fill="#d55e00" d="M6 2h3v13H6z"/>'
        b'<path fill="#009e73" d="M11 7h3v8h-3z"/></svg>'
    ).decode()
)

STYLE = f"""
:root {{ color-scheme: light dark; --paper: {LIGHT.paper}; --ink: {LIGHT.ink};
  --line: #d0d7de; --quiet: #57606a; --box: #f3f5f7; --shade: #0003; --accent: #0b5f94; }}
@media (prefers-color-scheme: dark) {{ :root {{ --paper: {DARK.paper}; --ink: {DARK.ink};
  --line: #363d46; --quiet: #9aa4ae; --box: #1f252c; --shade: #fff3; --accent: #7cc4ef; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; padding: 1rem; max-width: 66rem; background: var(--paper);
  color: var(--ink); font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: break-word; }}
h1 {{ font-size: 1.6rem; line-height: 1.25; margin: 0.5rem 0; }}
h2 {{ font-size: 1.3rem; margin: 2.5rem 0 0.5rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }}
a {{ color: var(--accent); }}
nav ul {{ display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; padding: 0; list-style: none; }}
.scroll {{ overflow-x: auto; margin: 1rem 0; background:
  linear-gradient(to left, var(--paper), var(--paper)) right / 2rem 100% no-repeat local,
  linear-gradient(to left, var(--shade), transparent) right / 1rem 100% no-repeat scroll; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
caption {{ text-align: left; color: var(--quiet); padding: 0 0 0.35rem; }}
th, td {{ padding: 0.3rem 0.9rem 0.3rem 0; border-bottom: 1px solid var(--line);
  text-align: left; vertical-align: top; }}
thead th, .number, tbody th {{ white-space: nowrap; }}
.number {{ text-align: right; }}
tr.best {{ font-weight: 600; background: var(--box); }}
.beside {{ display: grid; gap: 1.5rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); }}
.beside > div {{ min-width: 0; }}
figure {{ margin: 1rem 0; }}
img {{ display: block; width: 100%; max-width: 35rem; height: auto; }}
pre {{ overflow-x: auto; padding: 0.75rem; border-radius: 0.4rem; background: var(--box);
  font: 0.85rem/1.5 ui-monospace, monospace; }}
.quiet, footer {{ color: var(--quiet); }}
@media (max-width: 30rem) {{ .scroll {{ font-size: 0.875rem; }}
  th, td {{ padding-right: 0.7rem; }} }}
@media print {{ pre {{ white-space: pre-wrap; }} }}
"""


class Section(NamedTuple):
    """A part of a page, under a heading of its own."""

    id: str
    title: str
    parts: Sequence[str]


def page(title: str, head: Sequence[str], sections: Sequence[Section], foot: str) -> str:
    """Write a page; ``head`` stands above the list of its sections."""
    links = "".join(f'<li><a href="#{part.id}">{escape(part.title)}</a></li>' for part in sections)
    body = "".join(
        f'<section id="{part.id}"><h2>{escape(part.title)}</h2>{"".join(part.parts)}</section>\n'
        for part in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n"
        f'<link rel="icon" href="{ICON}">\n<style>{STYLE}</style>\n</head>\n<body>\n'
        f"<header><h1>{escape(title)}</h1>{''.join(head)}</header>\n"
        f'<nav aria-label="Contents"><ul>{links}</ul></nav>\n<main>\n{body}</main>\n'
        f"<footer><p>{escape(foot)}</p></footer>\n</body>\n</html>\n"
    )


def paragraph(text: str) -> str:
    """Write a paragraph."""
    return f"<p>{escape(text)}</p>"


def bullets(texts: Iterable[str]) -> str:
    """Write a list."""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f"<ul>{items}</ul>" if items else ""


def facts(rows: Mapping[str, str]) -> str:
    """Write names, and what is said of each."""
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(said)}</td></tr>'
        for name, said in rows.items()
    )
    return f"<table><tbody>{body}</tbody></table>"


def table(
    caption: str,
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    best: int | None = None,
    left: Iterable[str] = (),
) -> str:
    """Write a table that scrolls where it is too wide. All but the first column are numbers.

    Except those in ``left``. The row ``best`` stands out.
    """
    number = ["" if i == 0 or name in left else ' class="number"' for i, name in enumerate(header)]
    head = "".join(
        f'<th scope="col"{kind}>{escape(name)}</th>'
        for name, kind in zip(header, number, strict=True)
    )
    body = ""
    for place, (first, *cells) in enumerate(rows):
        row = "".join(
            f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(cells, number[1:], strict=True)
        )
        marked = ' class="best"' if place == best else ""
        body += f'<tr{marked}><th scope="row">{escape(first)}</th>{row}</tr>'
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def picture(light: Figure, dark: Figure) -> str:
    """Show a picture in the colours of the page."""
    width, height = (round(PAGE_DPI * float(side)) for side in light.get_size_inches())
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{_data(dark)}">'
        f'<img src="{_data(light)}" width="{width}" height="{height}" '
        f'alt="{escape(description(light))}"></picture></figure>'
    )


def side_by_side(*parts: str) -> str:
    """Show pictures and tables side by side where there is room."""
    return f'<div class="beside">{"".join(f"<div>{part}</div>" for part in parts)}</div>'


def commands(lines: Sequence[str], intro: str = "The same from the command line:") -> str:
    """Show what to type."""
    code = escape("\n".join(lines))
    return f'<p class="quiet">{escape(intro)}</p><pre tabindex="0"><code>{code}</code></pre>'


def _data(figure: Figure) -> str:
    return "data:image/svg+xml;base64," + b64encode(drawn(figure, "svg")).decode()
