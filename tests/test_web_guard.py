import pytest
from starlette.datastructures import Headers

from serving.web_guard import is_loopback, is_ours, refusal, shown_address

OURS = {"host": "127.0.0.1:7860", "content-type": "application/json"}


@pytest.mark.parametrize("name", ["127.0.0.1:7860", "127.0.0.1", "localhost:7860", "[::1]:7860", "LOCALHOST:7860"])
def test_the_loopback_addresses_are_ours(name: str) -> None:
    assert is_ours(name, "127.0.0.1")


@pytest.mark.parametrize(
    "name",
    ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "10.0.0.1", "localhost.evil.example", "", "a b",
     "[::1", "127.0.0.1:port", "127.0.0.1@evil.example", "0x7f000001"],
)  # fmt: skip
def test_no_other_name_is_ours(name: str) -> None:
    assert not is_ours(name, "127.0.0.1")


def test_another_address_is_ours_if_the_user_listens_there() -> None:
    assert is_ours("10.0.0.1:80", "0.0.0.0")
    assert is_ours("shop.lan", "shop.lan")
    assert not is_ours("evil.example", "0.0.0.0")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}, ""),
        ({"origin": "http://127.0.0.1:9999"}, "another site"),
        ({"origin": "https://127.0.0.1:7860"}, "another site"),
        ({"origin": "http://evil.example"}, "another site"),
        ({"origin": "null"}, "another site"),
        ({"sec-fetch-site": "cross-site"}, "another site"),
        ({"sec-fetch-site": "same-site"}, "another site"),
        ({"content-type": "text/plain"}, "another content type"),
        ({"content-type": "multipart/form-data; boundary=x"}, "another content type"),
        ({"content-type": ""}, "another content type"),
        ({"host": "evil.example"}, "its own address alone"),
    ],
)
def test_a_change_must_come_from_our_page(changes: dict[str, str], words: str) -> None:
    reason = refusal("POST", Headers(OURS | changes), "127.0.0.1")
    assert words in reason
    assert bool(reason) == bool(words)


def test_reading_needs_our_name_alone() -> None:
    assert refusal("GET", Headers({"host": "localhost:7860"}), "127.0.0.1") == ""
    assert refusal("GET", Headers({"host": "evil.example"}), "127.0.0.1")
    assert refusal("GET", Headers(raw=[]), "127.0.0.1")
    assert refusal("GET", Headers(raw=[(b"host", b"localhost"), (b"host", b"evil.example")]), "127.0.0.1")


def test_the_address_to_open_is_one_that_a_browser_takes() -> None:
    assert shown_address("127.0.0.1", 7860) == "http://127.0.0.1:7860"
    assert shown_address("0.0.0.0", 80) == "http://127.0.0.1:80"
    assert shown_address("::1", 80) == "http://[::1]:80"
    assert is_loopback("127.0.0.5")
    assert is_loopback("localhost")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("shop.lan")
