"""Write the reference of every flag: python -m options > docs/flags.md."""

import re
import signal

from options.app import app_parser
from options.audit import audit_parser
from options.choose import choose_parser
from options.embed import embed_parser
from options.export import export_parser
from options.fill import fill_parser
from options.inference import inference_parser
from options.parser import Group, Parser, default_text
from options.refit import refit_parser
from options.report import report_parser
from options.rules import Declaration, flag
from options.search import search_parser
from options.split import split_parser
from options.train import train_parser
from options.validate import validate_parser
from options.values import Number

_HEAD = """# Flags

Every flag of the commands, by group. `make flags` writes this page from `options/`.

- Every switch has an opposite: `--amp` and `--no-amp`, `--no-aug` and `--aug`.
- `-c recipe.yaml` reads flags from a file; each key is a flag. Typed flags win: flags of the file that contradict
  them, or that they leave without effect, are ignored.
- A flag that would have no effect is refused with the reason. Where its needs say "else logged", the run starts and
  logs the reason.
- The default `-` means off, unless the meaning names a default. Square brackets list the choices,
  or the range of a number.
"""

_PARSERS = (  # in the order of the page
    *(train_parser, validate_parser, inference_parser, refit_parser),
    *(report_parser, export_parser, choose_parser, split_parser, audit_parser),
    *(fill_parser, embed_parser, search_parser, app_parser),
)


def reference() -> str:
    """Return the page."""
    return "\n".join([_HEAD, *(_command(parser()) for parser in _PARSERS)])


def _command(parser: Parser) -> str:
    """Return the section of a command."""
    groups = [_group(parser, group) for group in parser.groups]
    return "\n".join([f"## {parser.prog}\n", f"{parser.description}\n", *groups])


def _group(parser: Parser, group: Group) -> str:
    """Return the table of a group."""
    intro = [f"{group.intro}\n"] if group.intro else []
    if group.title == "Refused":
        rows = ["| flag | why it is refused |", "|---|---|"]
    else:
        rows = ["| flag | default | meaning | needs |", "|---|---|---|---|"]
    rows += [_row(parser, parser.rules.declared[dest]) for dest in group.dests]
    return "\n".join([f"### {group.title}\n", *intro, *rows, ""])


def _row(parser: Parser, rule: Declaration) -> str:
    """Return the row of a flag."""
    spelled = ", ".join(f"`{name}`" for name in rule.spellings)
    if rule.refused:
        cells = [spelled, rule.refused]
    else:
        meaning = f"{rule.help} [{allowed}]" if (allowed := _allowed(parser, rule)) else rule.help
        cells = [spelled, default_text(rule.default) or "-", _quoted(meaning), _needs(rule)]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _allowed(parser: Parser, rule: Declaration) -> str:
    """Return the choices of a flag, or the range of its number; "" for neither."""
    action = parser.flags.get(rule.spellings[0])
    if action and isinstance(action.type, Number):
        return action.type.span
    return ", ".join(filter(None, action.choices)) if action and action.choices else ""


def _needs(rule: Declaration) -> str:
    """Return what a flag needs, and what it excludes."""
    parts = []
    for need in rule.needs:
        if need.wanted:
            words = _quoted(need.wanted if need.verb == "needs" else f"not with {need.wanted}")
            words = f"with `{need.only_with}`: {words}" if need.only_with else words
            parts.append(f"{words} (else logged)" if need.noted else words)
    if rule.excludes:
        parts.append(f"not with `{flag(rule.excludes[0])}`")
    return "; ".join(parts)


def _quoted(text: str) -> str:
    """Return a text with its flags as code."""
    return re.sub(r"(?<![\w-])--?[a-z][\w-]*", r"`\g<0>`", text)


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # head may close the pipe early
    print(reference(), end="")
