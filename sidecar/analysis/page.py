"""One self-contained HTML page: sections with prose, tables and charts. It is light or dark as the
reader's system is, and fetches nothing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sidecar.analysis.charts import nothing

STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--faint:#667;--paper:#fff;--line:#d8dce2;--band:#f4f6f8;
--c0:#2f6db5;--c1:#d1690e;--c2:#2e8b57;--c3:#b03a5b;--c4:#7b52ab;--c5:#8a7000;--c6:#00858a;--c7:#777}
@media (prefers-color-scheme:dark){:root{--ink:#e4e7eb;--faint:#99a3ae;--paper:#15181c;
--line:#3a4048;--band:#1e2328;--c0:#6ea8ec;--c1:#f0984a;--c2:#5cc48b;--c3:#e8799a;--c4:#b695e6;
--c5:#cfb443;--c6:#45c4c9;--c7:#aaa}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);margin:0 auto;
max-width:62rem;padding:1rem 1.5rem 4rem}
h1{font-size:1.6rem}h2{font-size:1.25rem;margin-top:2.5rem;border-bottom:1px solid var(--line)}
h3{font-size:1rem;margin-top:1.5rem}p{max-width:48rem}nav a{margin-right:1em}
a{color:var(--c0)}.none,figcaption,.legend{color:var(--faint)}
figure{margin:1rem 0}svg{width:100%;max-width:760px;height:auto;display:block}
.t{font-size:12px;fill:var(--ink)}.axis,.whisker,.diagonal,.grid{fill:none;stroke:var(--faint)}
.grid{stroke:var(--line)}.diagonal{stroke-dasharray:4 4}.whisker{stroke:var(--ink)}
.dots{fill-opacity:.6}.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.9rem;margin:.8rem 0}
td,th{padding:.2rem .6rem;text-align:right;border-bottom:1px solid var(--line)}
th{background:var(--band);font-weight:600}td.l,th.l{text-align:left}
.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.3em}
.legend span{margin-right:1em}
""" + "".join(f".f{k}{{fill:var(--c{k})}}.s{k}{{fill:none;stroke:var(--c{k});stroke-width:2}}"
              f".b{k}{{background:var(--c{k})}}" for k in range(8))


class HtmlPage:
    """Gathers sections; ``html`` is the finished document."""

    def __init__(self, title: str, lead: str) -> None:
        """``lead`` is what the reader should know first, as plain text."""
        self._title = title
        self._lead = lead
        self._sections: list[tuple[str, str]] = []

    def section(self, title: str, *parts: str) -> None:
        """Add a section of finished HTML parts: see ``prose``, ``table``, ``figure``."""
        self._sections.append((title, "\n".join(parts)))

    def html(self) -> str:
        """Return the document."""
        menu = " ".join(f'<a href="#s{k}">{escape(title)}</a>'
                        for k, (title, _) in enumerate(self._sections))
        body = "\n".join(f'<section id="s{k}"><h2>{escape(title)}</h2>\n{parts}</section>'
                         for k, (title, parts) in enumerate(self._sections))
        return (f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
                f'<meta name="viewport" content="width=device-width,initial-scale=1">'
                f"<title>{escape(self._title)}</title><style>{STYLE}</style></head>\n<body>"
                f"<h1>{escape(self._title)}</h1><p>{escape(self._lead)}</p><nav>{menu}</nav>\n"
                f"{body}\n</body></html>\n")


def prose(text: str) -> str:
    """Return a paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def heading(text: str) -> str:
    """Return a heading within a section."""
    return f"<h3>{escape(text)}</h3>"


def figure(chart: str, caption: str) -> str:
    """Return a chart with a plain-text caption that says how to read it."""
    return f"<figure>{chart}<figcaption>{escape(caption)}</figcaption></figure>"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> str:
    """Return a table of plain texts; the first ``words`` columns are words, the others numbers."""
    if not rows:
        return nothing()

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(
            f'<{tag}{" class=l" if k < words else ""}>{escape(cell)}</{tag}>'
            for k, cell in enumerate(cells)) + "</tr>"

    return ('<div class="wide"><table>' + line(head, "th")
            + "".join(line(row, "td") for row in rows) + "</table></div>")
