"""What pages for people share: a style for small and large screens, light and dark, and tables that can be sorted."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from html import escape as _escape

STYLE = """
:root { color-scheme: light dark; --ink: #1d2329; --soft: #59636e; --line: #d5dae0; --page: #fff; --band: #f4f6f8;
  --link: #0a58ca; --error: #b42318; --warning: #8a5a00; --notice: #4a5563; --bar: #9db8d9; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ec; --soft: #a3adb8; --line: #39424c; --page: #14181c;
  --band: #1d2329; --link: #7db4ff; --error: #ff9087; --warning: #f0c060; --notice: #b4bec9; --bar: #3f5f86; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif;
  overflow-wrap: break-word; }
header, main, footer { max-width: 72rem; margin: 0 auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 1.5rem 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.25rem 0 .5rem; overflow-wrap: anywhere; }
h3 { font-size: 1.05rem; margin: 2rem 0 .25rem; scroll-margin-top: .5rem; }
p { margin: .25rem 0 .75rem; max-width: 46rem; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
.skip { position: absolute; left: -999rem; } .skip:focus { left: 1rem; top: .5rem; background: var(--page); }
.soft { color: var(--soft); } .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.error, .warning, .notice { font-weight: 600; white-space: nowrap; }
.error { color: var(--error); } .warning { color: var(--warning); } .notice { color: var(--notice); }
.scroll { overflow-x: auto; margin: .5rem 0 1rem; }
table { border-collapse: collapse; min-width: 50%; font-size: .92rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); }
td.long { overflow-wrap: anywhere; min-width: 13rem; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; } th.number { text-align: right; }
th button { all: unset; cursor: pointer; } th button:focus-visible { outline: 3px solid var(--link); }
th button::after { content: " \\2195"; opacity: .45; }
th[aria-sort=ascending] button::after { content: " \\2191"; opacity: 1; }
th[aria-sort=descending] button::after { content: " \\2193"; opacity: 1; }
details { border: 1px solid var(--line); border-radius: .4rem; margin: .5rem 0; padding: 0 .75rem; }
summary { cursor: pointer; padding: .45rem 0; font-weight: 600; overflow-wrap: anywhere; }
.bar { display: block; height: .6rem; min-width: 1px; background: var(--bar); border-radius: 2px; margin-top: .45rem; }
td.bars { width: 12rem; min-width: 7rem; }
.examples { display: flex; flex-wrap: wrap; gap: .75rem; margin: .5rem 0; padding: 0; list-style: none; }
.examples li { background: var(--band); border: 1px solid var(--line); border-radius: .4rem; padding: .5rem;
  max-width: 16.5rem; font-size: .8rem; line-height: 1.35; overflow-wrap: anywhere; }
.examples li.single { max-width: 9rem; }
.pictures { display: flex; gap: .4rem; align-items: flex-start; margin-bottom: .35rem; }
.pictures img { display: block; max-width: 7rem; height: auto; background: #fff; }
footer { padding: 1.5rem 1rem 2.5rem; }
@media (max-width: 40rem) {
  td.long { min-width: 9rem; }
  table.stack, .stack tbody, .stack tr, .stack td { display: block; min-width: 0; text-align: left; border: 0; }
  .stack thead { display: none; }
  .stack tr { border-top: 1px solid var(--line); padding: .4rem 0; }
  .stack td { padding: .1rem 0; white-space: normal; overflow-wrap: anywhere; }
  .stack td::before { content: attr(data-head) ": "; color: var(--soft); }
}
"""

SCRIPT = """
document.querySelectorAll('th button').forEach(function (button) {
  button.addEventListener('click', function () {
    var head = button.parentNode, row = head.parentNode, body = row.parentNode.nextElementSibling;
    var place = Array.prototype.indexOf.call(row.children, head);
    var up = head.getAttribute('aria-sort') === 'ascending' ? -1 : 1;
    Array.prototype.forEach.call(row.children, function (one) { one.removeAttribute('aria-sort'); });
    head.setAttribute('aria-sort', up === 1 ? 'ascending' : 'descending');
    var key = function (line) {
      var cell = line.children[place];
      return cell.getAttribute('data-sort') || cell.textContent;
    };
    Array.prototype.slice.call(body.children).sort(function (a, b) {
      var left = key(a), right = key(b), difference = Number(left) - Number(right);
      var order = isNaN(difference) ? left.localeCompare(right) : difference;
      return up * order;
    }).forEach(function (line) { body.appendChild(line); });
  });
});
"""

_LONGEST = 160  # characters of a user's text


def plain(text: object, longest: int = _LONGEST) -> str:
    """Return a user's text for a page's data: cut to 160 or `longest` characters, without control characters."""
    words = str(text)
    if len(words) > longest:
        words = words[: longest - 1] + "…"
    if words.isprintable():
        return words
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in words)


def escape(text: object, longest: int = _LONGEST) -> str:
    """Return a user's text for a page: cut to 160 or `longest` characters, without markup and control characters."""
    return _escape(plain(text, longest), quote=True)


def page(
    title: str, header: str, main: str, footer: str, *, style: str = "", script: str = "", data: object = None
) -> str:
    """Return a whole page. It loads nothing, and its policy lets a browser run no script but the page's own.

    Args:
        title: a user's text.
        header: markup.
        main: markup.
        footer: markup.
        style: rules besides those that all pages share.
        script: a script besides the one for sorting.
        data: what the script reads from the element `data`, as JSON; its texts are from `plain`. None for nothing.
    """
    script = SCRIPT + script
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # In JSON, "<" occurs in strings only, where an escape stands for it: no text can end the element.
    content = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    block = "" if data is None else f'<script type="application/json" id="data">{content}</script>\n'
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}{style}</style>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header>
{header}
</header>
<main id="content">
{main}
</main>
<footer class="soft">
{footer}
</footer>
{block}<script>{script}</script>
</body>
</html>
"""


def table(
    label: str, heads: Sequence[str], lines: Iterable[Sequence[str]], numbers: Sequence[int] = (), kind: str = ""
) -> str:
    """Return a table whose columns can be sorted.

    Args:
        label: what the table shows, for screen readers; a user's text.
        heads: the columns' names; a user's text.
        lines: the cells as `cell` returns them.
        numbers: positions of the columns of numbers.
        kind: "stack" shows each line as a block on a small screen, if its cells name their columns.
    """
    columns = "".join(
        f'<th scope="col"{" class=number" if place in numbers else ""}>'
        f'<button type="button">{escape(head)}</button></th>'
        for place, head in enumerate(heads)
    )
    body = "\n".join(f"<tr>{''.join(line)}</tr>" for line in lines)
    style = f" class={kind}" if kind else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">\n<table{style}>\n'
        f"<thead><tr>{columns}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def cell(text: object, kind: str = "", head: str = "") -> str:
    """Return a cell with a user's text.

    Args:
        text: the text.
        kind: a class of the style, or "".
        head: the name of its column, for tables of the kind "stack".
    """
    return f"<td{f' class={kind}' if kind else ''}{_named(head)}>{escape(text)}</td>"


def number(value: float, shown: str = "", head: str = "") -> str:
    """Return a cell with a number.

    Args:
        value: the number.
        shown: its form for readers; by default it has commas at thousands.
        head: the name of its column, for tables of the kind "stack".
    """
    return f'<td class="number"{_named(head)} data-sort="{value}">{shown or f"{value:,}"}</td>'


def _named(head: str) -> str:
    return f' data-head="{escape(head)}"' if head else ""
