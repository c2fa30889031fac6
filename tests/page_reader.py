"""A reader of our pages for people: well-formed, with nothing but our own tags, attributes, script and style."""

from collections.abc import Iterator
from html.parser import HTMLParser

ALLOWED = {"src", "href", "class", "id", "style", "alt", "lang", "charset", "name", "content", "http-equiv", "type"}
ALLOWED |= {"tabindex", "role", "aria-label", "scope", "data-sort", "data-head"}


class Reader(HTMLParser):
    """Collects the tags with their attributes, and checks that each that opens closes."""

    VOID = ("meta", "img", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))  # in a drawing: <path/>

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def named(self, tag: str) -> Iterator[dict[str, str | None]]:
        return (attributes for name, attributes in self.tags if name == tag)


def read_page(text: str, scripts: int = 1, others: frozenset[str] = frozenset()) -> Reader:
    """Check that a page is well-formed, loads nothing, and has no attribute but ours; return its reader.

    Args:
        text: the page.
        scripts: number of its script elements; one may hold data.
        others: attributes that this kind of page has too.
    """
    reader = Reader(text)
    assert not reader.open
    assert {name for _, attributes in reader.tags for name in attributes} <= ALLOWED | others
    assert (text.count("<script"), text.count("<style")) == (scripts, 1)
    for attributes in reader.named("img"):
        assert str(attributes["src"]).startswith("data:image/jpeg;base64,")
    for attributes in reader.named("a"):
        assert str(attributes["href"]).startswith("#")
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert {str(attributes["href"])[1:] for attributes in reader.named("a")} <= set(ids)
    assert "http://" not in text
    assert "https://" not in text
    return reader
