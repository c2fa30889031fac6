import socket
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
import safetensors.torch
import torch
from huggingface_hub import close_session, constants

import timm
from catalog.label_space import LabelSpace
from runtime.errors import UsageError
from timm.models.multi_label import create_multi_label_model
from timm.models.pretrained_weights import DownloadError

torch.set_num_threads(1)

SPACE = LabelSpace({"color": ("blue", "red")})
PROXIES = [form(name) for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy") for form in (str, str.upper)]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, tmp_path):
    """Set a hub at a closed port, an empty cache, and no proxies."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    set_hub(monkeypatch, f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def set_hub(monkeypatch, address):
    """Let all requests go to an address; the real hub is asked again and again for most of a minute."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def make(arch="test_resnet", path=None, size=(3, 32, 32), **kwargs):
    return create_multi_label_model(
        arch, SPACE, pretrained=True, pretrained_path=path and str(path), image_size=size, **kwargs
    )


def weights_of(arch="test_resnet"):
    """Return weights with timm's classifier of 1,000 classes, as they are published."""
    torch.manual_seed(1)
    return timm.create_model(arch).state_dict()


def assert_backbone(model, weights):
    loaded = model.backbone.state_dict()
    assert all(torch.equal(loaded[name], weights[name]) for name in loaded)


def test_a_hub_out_of_reach_is_noticed_at_once_in_one_sentence(capfd):
    start = time.monotonic()
    with pytest.raises(DownloadError) as caught:
        make()
    assert time.monotonic() - start < 5
    assert str(caught.value) == (
        f"the weights of test_resnet cannot be downloaded ({constants.ENDPOINT} does not answer and the cache has none)"
    )
    assert capfd.readouterr().err == ""  # no retries
    assert constants.HF_HUB_OFFLINE is False


def test_a_hub_that_accepts_and_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr("timm.models.pretrained_weights._HUB_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        set_hub(monkeypatch, f"http://127.0.0.1:{server.getsockname()[1]}")
        start = time.monotonic()
        with pytest.raises(DownloadError, match="does not answer"):
            make()
        assert time.monotonic() - start < 5


class Hub(BaseHTTPRequestHandler):
    """Knows no file, and counts the requests."""

    requests = 0

    def do_HEAD(self):
        Hub.requests += 1
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *args):
        pass


@pytest.fixture
def hub():
    """Serve a hub without files; return its address."""
    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        Hub.requests = 0
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_hub_without_the_weights_is_quoted(monkeypatch, hub):
    set_hub(monkeypatch, hub)
    with pytest.raises(DownloadError, match=r"test_resnet cannot be downloaded \((?!.*does not answer)") as caught:
        make()
    assert "\n" not in str(caught.value)


def test_the_hub_is_asked_through_the_proxy(monkeypatch, hub):
    set_hub(monkeypatch, "http://hub.invalid")
    monkeypatch.setenv("http_proxy", hub)
    close_session()  # a new session reads the environment again
    with pytest.raises(DownloadError):
        make()
    assert Hub.requests > 0
    monkeypatch.delenv("http_proxy")
    close_session()


def test_the_offline_switch_of_the_user_is_named(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UsageError, match=r"\(HF_HUB_OFFLINE is set and the cache has none\)"):
        make()
    assert constants.HF_HUB_OFFLINE is True


def test_weights_in_the_cache_need_no_hub(tmp_path):
    weights = weights_of()
    repository = (
        tmp_path / "hub" / f"models--{timm.create_model('test_resnet').pretrained_cfg['hf_hub_id'].replace('/', '--')}"
    )
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("0" * 40)
    safetensors.torch.save_file(weights, snapshot / "model.safetensors")
    assert_backbone(make(), weights)


def test_a_checkpoint_of_ours_is_loaded_like_weights_of_timm(tmp_path):
    weights = weights_of()
    ours = {f"backbone.{name}": value for name, value in weights.items()} | {"heads.0.weight": torch.zeros(3, 4)}
    torch.save({"state_dict": ours}, tmp_path / "last.pth.tar")
    assert_backbone(make(path=tmp_path / "last.pth.tar"), weights)


# Families whose weights timm converts before loading; it recognizes their format by the names.
@pytest.mark.parametrize(
    "arch", ["test_convnext", "test_vit", "edgenext_xx_small", "poolformer_s12", "tiny_vit_5m_224"]
)
def test_a_checkpoint_of_ours_is_loaded_for_families_whose_weights_timm_converts(tmp_path, arch):
    torch.manual_seed(1)
    model = create_multi_label_model(arch, SPACE, image_size=(3, 224, 224), projection_dim=8)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "last.pth.tar")
    loaded = make(arch, tmp_path / "last.pth.tar", size=(3, 224, 224))
    assert_backbone(loaded, model.backbone.state_dict())
    assert "state_dict" not in loaded.backbone.pretrained_cfg


def test_missing_tensors_are_named(tmp_path, caplog):
    weights = weights_of("resnet18")
    torch.save({name: value for name, value in weights.items() if name != "conv1.weight"}, tmp_path / "weights.pth")
    make("resnet18", tmp_path / "weights.pth")
    assert caplog.messages[-1] == "The file of pretrained weights lacks conv1.weight, which keep their first weights"


@pytest.mark.parametrize("form", ["weights.pth", "weights.safetensors", "checkpoint.pth.tar"])
def test_a_local_file_is_loaded_without_the_hub(tmp_path, form):
    weights = weights_of()
    if form == "weights.safetensors":
        safetensors.torch.save_file(weights, tmp_path / form)
    else:
        torch.save(weights if form == "weights.pth" else {"state_dict": weights}, tmp_path / form)
    assert_backbone(make(path=tmp_path / form), weights)


def test_a_local_file_is_adapted_to_one_channel(tmp_path):
    weights = weights_of()
    torch.save(weights, tmp_path / "weights.pth")
    model = make(path=tmp_path / "weights.pth", size=(1, 32, 32))
    torch.testing.assert_close(model.backbone.conv1[0].weight, weights["conv1.0.weight"].sum(1, keepdim=True))


def test_a_local_file_is_adapted_to_another_image_size_and_pooling(tmp_path):
    torch.save(weights_of("test_vit"), tmp_path / "weights.pth")
    model = make("test_vit", tmp_path / "weights.pth", global_pool="avg")
    assert model.backbone.pos_embed.shape[1] == 4 + 1  # 32 px in patches of 16, and the class token
    assert model.eval()(torch.randn(1, 3, 32, 32))["color"].shape == (1, 2)


@pytest.mark.parametrize("others", ["test_convnext", "resnet18"])
def test_a_file_for_another_architecture_is_one_sentence(tmp_path, others):
    torch.save(weights_of(others), tmp_path / "others.pth")
    with pytest.raises(UsageError, match=r"pretrained_path: .*others\.pth does not fit test_resnet: .") as caught:
        make(path=tmp_path / "others.pth")
    assert "\n" not in str(caught.value)


def test_a_file_for_a_deeper_or_shallower_sibling_is_one_sentence(tmp_path):
    for depth, other in ((2, 3), (3, 2)):  # the shapes match for the common names, so timm raises nothing
        kwargs = {"model_kwargs": {"layers": (depth, 1, 1, 1)}}
        torch.save(timm.create_model("test_resnet", layers=(other, 3, 3, 3)).state_dict(), tmp_path / "sibling.pth")
        with pytest.raises(UsageError, match=r"does not fit test_resnet: \d+ tensors of the model are missing in it"):
            make(path=tmp_path / "sibling.pth", **kwargs)


@pytest.mark.parametrize("name", ["none.pth", "garbage.pth", "garbage.safetensors"])
def test_an_unreadable_local_file_is_one_sentence(tmp_path, name):
    if name != "none.pth":
        (tmp_path / name).write_bytes(b"garbage")
    with pytest.raises(UsageError, match=f"pretrained_path: .*{name}") as caught:
        make(path=tmp_path / name)
    assert "\n" not in str(caught.value)


def test_other_mistakes_keep_their_own_sentences(tmp_path):
    torch.save(weights_of(), tmp_path / "weights.pth")
    for path in (None, tmp_path / "weights.pth"):
        with pytest.raises(UsageError, match="test_resnet does not take foo=1"):
            make(path=path, model_kwargs={"foo": 1})


def test_weights_that_timm_converts_are_not_missing(tmp_path, caplog):
    weights = weights_of("swin_tiny_patch4_window7_224")
    original = {name.replace("layers.1.downsample", "layers.0.downsample"): v for name, v in weights.items()}
    original = {n.replace("layers.2.downsample", "layers.1.downsample"): v for n, v in original.items()}
    original = {n.replace("layers.3.downsample", "layers.2.downsample"): v for n, v in original.items()}
    original = {n.replace("head.fc.", "head."): v for n, v in original.items()}
    assert original.keys() != weights.keys()
    torch.save({"model": original}, tmp_path / "swin.pth")
    model = make("swin_tiny_patch4_window7_224", tmp_path / "swin.pth", size=(3, 224, 224))
    changed = [
        n for n, v in model.backbone.state_dict().items() if "downsample" in n and not torch.equal(v, weights[n])
    ]
    assert changed == []


def test_checking_the_names_draws_no_random_numbers(tmp_path):
    weights = weights_of("resnet18")
    torch.save(weights, tmp_path / "whole.pth")
    torch.save({name: value for name, value in weights.items() if name != "conv1.weight"}, tmp_path / "lacking.pth")
    states = []
    for name in ("whole.pth", "lacking.pth"):
        torch.manual_seed(0)
        make("resnet18", tmp_path / name)
        states.append(torch.get_rng_state())
    assert torch.equal(*states)
