"""Write the reference of every flag: python -m options > docs/flags.md."""

import re
from typing import Any

from options.inference import inference_parser
from options.parser import Group, Parser
from options.rules import Declaration, flag
from options.train import train_parser
from options.validate import validate_parser

_HEAD = """# Flags

Every flag of the three commands, by group. `make flags` writes this page from `options/`.

- A switch has an opposite: `--amp` and `--no-amp`, `--no-aug` and `--aug`.
- `-c recipe.yaml` reads flags from a file, one key a flag. A typed flag wins, and takes back what it contradicts there.
- A flag that would have no effect is refused with the reason. "else logged" means that it is named in the log instead.
- The default `-` means off, or that the meaning names the default. Square brackets hold the words to choose from.
"""


def reference() -> str:
    """Return the page."""
    return "\n".join([_HEAD, *(_command(parser) for parser in (train_parser(), validate_parser(), inference_parser()))])


def _command(parser: Parser) -> str:
    """Return the section of a command."""
    description = str(parser.description).removesuffix(" A switch has an opposite.")
    groups = [_group(parser, group) for group in parser.groups]
    return "\n".join([f"## {parser.prog}\n", f"{description}\n", *groups])


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
        action = parser.flags.get(rule.spellings[0])
        choices = ", ".join(filter(None, action.choices)) if action and action.choices else ""
        meaning = f"{rule.help} [{choices}]" if choices else rule.help
        cells = [spelled, _shown(rule.default), _quoted(meaning), _needs(rule)]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _needs(rule: Declaration) -> str:
    """Return what a flag needs, and what it excludes."""
    parts = []
    for need in rule.needs:
        if need.wanted:
            words = need.wanted if need.verb == "needs" else f"no {need.wanted}"
            words += f" with {need.beside}" if need.beside else ""
            parts.append(f"{words} (else logged)" if need.noted else words)
    if rule.excludes:
        parts.append(f"no {flag(rule.excludes[0])}")
    return _quoted("; ".join(parts))


def _quoted(text: str) -> str:
    """Return a text with its flags as code."""
    return re.sub(r"(?<![\w-])--?[a-z][\w-]*", r"`\g<0>`", text)


def _shown(default: Any) -> str:
    """Return a default as one types it."""
    if default in ("", None, False) or default == {}:
        return "0" if default == 0 and not isinstance(default, bool) else "-"
    if default is True:
        return "on"
    values = default if isinstance(default, list) else [default]
    return " ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


if __name__ == "__main__":
    print(reference(), end="")
