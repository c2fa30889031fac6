"""The page's answers: what a model says about an image, similar images, and labels; nothing else is read or written."""

import base64
import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asgi import post_json, request
from PIL import Image
from test_upload import EPS, huge_png
from tiny_checkpoint import CLASSES, make_data, make_model, save_checkpoint

from catalog.answer_file import AnswerFile
from catalog.label_space import LabelSpace
from catalog.queue_file import queue_roots, read_queue
from catalog.table import read_table
from catalog.upload import MOST_BYTES
from serving import MultiLabel
from serving.index_build import build_index
from serving.labeling_desk import LabelingDesk
from serving.promise import Promise
from serving.search import Index
from serving.web_site import Site, make_site

SPACE = LabelSpace(CLASSES | {"tags": ("cotton", "summer", "wool")}, ["tags"], ";")
QUEUE = """rank,image_path,attribute,guess_1,probability_1,guess_2,probability_2
1,images/val-0.png,color,red,0.5,blue,0.4
2,images/val-1.png,tags,cotton,0.6,wool,0.5
3,images/val-0.png,size,XL,0.5,L,0.3
4,../../etc/passwd,color,red,0.5,blue,0.4
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def checkpoint(data: Path) -> Path:
    flags = {"attribute_weights": {}, "data_dir": str(data), "val_split": "val"}
    model = make_model()
    return save_checkpoint(data / "run" / "last.pth.tar", model, args=flags, temperatures={"color": 2.0})


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> MultiLabel:
    return MultiLabel(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def app(model: MultiLabel, data: Path, checkpoint: Path) -> Any:
    """Return a site with a promise and an index."""
    build_index(model, [data / "val.csv"], data / "index")
    promise = Promise(model, 0.5, None)
    promise.wait()
    return make_site(Site(model, promise, Index(data / "index", device="cpu"), None), "127.0.0.1")


@pytest.fixture
def desk(data: Path, tmp_path: Path) -> Iterator[LabelingDesk]:
    queue = tmp_path / "queue.csv"
    queue.write_text(QUEUE)
    cells = read_queue(queue)
    answers = AnswerFile(tmp_path / "answers.csv")
    yield LabelingDesk(cells, queue_roots(queue, str(data), cells), answers, SPACE)
    answers.close()


@pytest.fixture
def queue_app(model: MultiLabel, desk: LabelingDesk) -> Any:
    return make_site(Site(model, None, None, desk), "127.0.0.1")


def photo(data: Path, number: int = 0) -> bytes:
    return (data / "images" / f"val-{number}.png").read_bytes()


def test_the_answer_has_calibrated_probabilities_as_predict_has(app: Any, model: MultiLabel, data: Path) -> None:
    answer = request(app, "POST", "/photo", [photo(data)[:100], photo(data)[100:]]).content
    table = model.predict(data / "images" / "val-0.png", topk=3).to_pylist()[0]
    color, size = answer["attributes"]
    assert color["predicted"] == [table["color_1"]] == [color["classes"][0]["name"]]
    assert color["confidence"] == color["classes"][0]["probability"] == pytest.approx(table["color_1_probability"])
    assert sum(one["probability"] for one in color["classes"]) == pytest.approx(1)
    assert [one["name"] for one in size["classes"]][:2] == [table["size_1"], table["size_2"]]
    seen = Image.open(io.BytesIO(base64.b64decode(answer["seen"].partition(",")[2])))
    assert seen.size == (384, 384)
    assert answer["size"] == [32, 32]
    maps = [one["map"] for one in color["classes"] + size["classes"] if one["map"]]
    assert maps
    assert all(np.shape(one) == (4, 4) and np.max(one) == 1 and np.min(one) >= 0 for one in maps)


def test_what_is_not_promised_is_abstained_from(app: Any, model: MultiLabel, data: Path) -> None:
    answer = request(app, "POST", "/photo", [photo(data)]).content
    selections = model.select(0.5)
    for attribute in answer["attributes"]:
        limit = answer["promise"]["attributes"][attribute["name"]]
        assert attribute["abstains"] == (not attribute["confidence"] > selections[attribute["name"]].threshold)
        assert (limit["threshold"] is None) == (selections[attribute["name"]].threshold == float("inf"))


def test_without_a_validation_split_the_page_says_why_it_promises_nothing(tmp_path: Path, data: Path) -> None:
    model = MultiLabel(save_checkpoint(tmp_path / "a.pth.tar", make_model()), device="cpu")
    promise = Promise(model, 0.9, None)
    promise.wait()
    answer = request(make_site(Site(model, promise, None, None), "127.0.0.1"), "POST", "/photo", [photo(data)]).content
    assert answer["promise"]["state"] == "none"
    assert "names no validation split: give one with --validation TABLE" in answer["promise"]["reason"]
    assert not any(attribute["abstains"] for attribute in answer["attributes"])


@pytest.mark.parametrize(
    ("content", "words"),
    [(EPS, "it is EPS"), (b"", "empty"), (huge_png(60_000), "shrink it"), (b"<script>1</script>", "cannot be read")],
    ids=["eps", "empty", "huge", "script"],
)
def test_a_bad_image_is_one_sentence(app: Any, content: bytes, words: str) -> None:
    for address in ("/photo", "/similar"):
        answer = request(app, "POST", address, [content])
        assert answer.status == 400
        assert words in answer.content["error"]
        assert "Traceback" not in answer.body.decode()


def test_a_body_above_the_bound_is_refused_before_it_is_read(app: Any) -> None:
    answer = request(app, "POST", "/photo", [b"x"], content_length=str(MOST_BYTES + 1))
    assert (answer.status, answer.content["error"][:27]) == (413, "the image has more than the")
    parts = [bytes(1 << 20)] * 40
    assert request(app, "POST", "/photo", parts).status == 413  # without a length
    assert request(app, "POST", "/photo", [b"x"], content_length="-1").status == 413


def test_similar_images_are_those_of_the_index(app: Any, data: Path) -> None:
    answer = request(app, "POST", "/similar?top=3", [photo(data, 4)]).content["images"]
    assert [one["name"] for one in answer][:1] == ["images/val-4.png"]
    assert answer[0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert len(answer) == 3
    red = request(app, "POST", "/similar?where=color%3Dred&top=50", [photo(data, 4)]).content["images"]
    assert red
    assert all("color: red" in one["labels"][0] for one in red)
    wrong = request(app, "POST", "/similar?where=color%3Dread", [photo(data)])
    assert (wrong.status, "did you mean 'red'" in wrong.content["error"]) == (400, True)


def test_pictures_are_served_by_number_alone(app: Any, queue_app: Any) -> None:
    picture = request(app, "GET", "/similar/0")
    assert (picture.status, picture.headers["content-type"]) == (200, "image/jpeg")
    assert request(queue_app, "GET", "/queue/0/image").status == 200
    for name in ("99999", "-1", "x", "..%2f..%2fetc%2fpasswd", "1e3", "\u0663".encode().hex()):
        assert request(app, "GET", f"/similar/{name}").status in (400, 404)
        assert request(queue_app, "GET", f"/queue/{name}/image").status in (400, 404)
    for path in ("/../etc/passwd", "/app.py", "/static", "/docs", "/queue"):
        assert request(app, "GET", path).status == 404
    assert request(queue_app, "GET", "/queue/3/image").status == 404  # /etc/passwd is there, and no image
    assert request(queue_app, "POST", "/similar", [b"x"]).status == 404


def test_the_page_loads_nothing_from_elsewhere(app: Any) -> None:
    page, script, style = (request(app, "GET", path) for path in ("/", "/app.js", "/app.css"))
    assert [one.status for one in (page, script, style)] == [200] * 3
    for one in (page, script, style):
        assert one.headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert one.headers["x-content-type-options"] == "nosniff"
        assert b"http://" not in one.body
        assert b"https://" not in one.body
    assert b"innerHTML" not in script.body
    assert b"<script>" not in page.body
    assert b" style=" not in page.body


def test_another_site_can_neither_read_nor_write(queue_app: Any, desk: LabelingDesk) -> None:
    label = b'{"values": ["red"]}'
    for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}, {"content_type": "text/plain"}):
        answer = request(queue_app, "POST", "/queue/0/label", [label], **{"content_type": "application/json"} | headers)
        assert answer.status == 403
        assert "content-security-policy" in answer.headers
    assert request(queue_app, "GET", "/facts", host="evil.example").status == 403
    assert not desk.answers.path.exists()


def test_labels_reach_the_table_and_the_next_cell_follows(queue_app: Any, desk: LabelingDesk) -> None:
    first = request(queue_app, "GET", "/queue").content
    assert (first["cells"], first["done"], first["cell"]["number"]) == (4, 0, 0)
    assert first["cell"]["guesses"] == [{"name": "red", "probability": 0.5}, {"name": "blue", "probability": 0.4}]
    assert post_json(queue_app, "/queue/0/label", {"values": ["red"]}).content["done"] == 1
    assert request(queue_app, "GET", "/queue").content["cell"]["number"] == 1
    assert post_json(queue_app, "/queue/1/label", {"values": ["wool", "cotton"]}).content["written"]
    assert request(queue_app, "GET", "/queue?after=2").content["cell"]["number"] == 3  # skipped, and asked again later
    assert request(queue_app, "GET", "/queue?after=3").content["cell"]["number"] == 2
    assert post_json(queue_app, "/queue/2/label", {"values": ["L"]}).content["written"]
    assert desk.answers.path.read_text() == (
        "image_path,color,tags,size\nimages/val-0.png,red,,L\nimages/val-1.png,,wool;cotton,\n"
    )
    assert post_json(queue_app, "/queue/2/undo", {}).content["cell"]["attribute"] == "size"
    assert read_table(desk.answers.path).attributes == ("color", "tags")


def test_another_tab_keeps_its_label(queue_app: Any, desk: LabelingDesk) -> None:
    post_json(queue_app, "/queue/0/label", {"values": ["red"]})
    late = post_json(queue_app, "/queue/0/label", {"values": ["blue"]}).content
    assert (late["label"], late["written"]) == ("red", False)
    assert "red" in desk.answers.path.read_text()


def test_a_new_class_is_written_only_if_it_is_meant(queue_app: Any, desk: LabelingDesk) -> None:
    asked = post_json(queue_app, "/queue/0/label", {"values": ["Redd"]}).content
    assert asked["unknown"] == "'Redd' is a new class of color; did you mean 'red'?"
    assert not desk.answers.path.exists()
    assert post_json(queue_app, "/queue/0/label", {"values": ["Redd"], "new": True}).content["label"] == "Redd"
    assert post_json(queue_app, "/queue/3/label", {"values": ["Redd"]}).content["written"]  # known by now


def test_a_set_may_be_empty(queue_app: Any, desk: LabelingDesk) -> None:
    post_json(queue_app, "/queue/1/label", {"values": []})
    with desk.answers.path.open(newline="") as file:
        assert list(csv.reader(file)) == [["image_path", "tags"], ["images/val-1.png", ";"]]


@pytest.mark.parametrize(
    "content",
    [{}, [], {"values": "red"}, {"values": [1]}, {"values": []}, {"values": ["red", "blue"]}, {"values": ["a|b"]},
     {"values": [""]}, {"values": ["x" * 300]}, {"values": ["\ud800"]}],
)  # fmt: skip
def test_what_is_no_label_is_refused_in_a_sentence(queue_app: Any, desk: LabelingDesk, content: Any) -> None:
    answer = post_json(queue_app, "/queue/0/label", content)
    assert answer.status == 400
    assert answer.content["error"]
    assert not desk.answers.path.exists()


def test_a_fault_of_ours_shows_no_traceback(model: MultiLabel, monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    app = make_site(Site(model, None, None, None), "127.0.0.1")

    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("serving.web_site.read_photo", fail)
    answer = request(app, "POST", "/photo", [photo(data)])
    assert (answer.status, answer.content) == (500, {"error": "memory is exhausted: send a smaller image"})
