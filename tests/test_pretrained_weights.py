import socket
import time

import pytest
import safetensors.torch
import torch
from huggingface_hub import constants

import timm
from catalog.label_space import LabelSpace
from runtime.errors import UsageError
from timm.models.multi_label import create_multi_label_model
from timm.models.pretrained_weights import _answers, pretrained_weights

torch.set_num_threads(1)

SPACE = LabelSpace({"color": ("blue", "red")})
PROXIES = [form(name) for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy") for form in (str, str.upper)]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, tmp_path):
    """A hub at a port where nobody listens, an empty cache, no proxies."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def make(arch="test_resnet", path=None, size=(3, 32, 32), **kwargs):
    with pretrained_weights(arch, path and str(path)):
        return create_multi_label_model(
            arch, SPACE, pretrained=True, pretrained_path=path and str(path), image_size=size, **kwargs
        )


def weights_of(arch="test_resnet"):
    """Weights with timm's classifier of 1,000 classes, as they are published."""
    torch.manual_seed(1)
    return timm.create_model(arch).state_dict()


def assert_backbone(model, weights):
    own = model.backbone.state_dict()
    assert all(torch.equal(own[name], weights[name]) for name in own)


def test_a_hub_out_of_reach_is_told_at_once_in_a_sentence(capfd):
    start = time.monotonic()
    with pytest.raises(UsageError) as caught:
        make()
    assert time.monotonic() - start < 5
    assert str(caught.value) == (
        f"--pretrained: the weights of test_resnet cannot be downloaded ({constants.ENDPOINT} does not answer and "
        "the cache has none): give a local file with --pretrained-path FILE, or leave --pretrained out to train from "
        "scratch"
    )
    assert capfd.readouterr().err == ""  # no word of retries
    assert constants.HF_HUB_OFFLINE is False


def test_a_hub_that_never_answers_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("timm.models.pretrained_weights._PATIENCE", 0.2)

    def connect(*args, **kwargs):
        time.sleep(1)
        raise OSError

    monkeypatch.setattr(socket, "create_connection", connect)
    start = time.monotonic()
    with pytest.raises(UsageError, match="does not answer"):
        make()
    assert time.monotonic() - start < 1


def test_the_users_own_offline_switch_is_named(monkeypatch):
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


@pytest.mark.parametrize(
    ("variable", "value"), [("http_proxy", "http://{}"), ("HTTP_PROXY", "{}"), ("all_proxy", None), ("no_proxy", None)]
)
def test_the_proxy_is_asked_where_there_is_one(monkeypatch, variable, value):
    with socket.create_server(("127.0.0.1", 0)) as server:
        proxy = f"127.0.0.1:{server.getsockname()[1]}"
        if value:
            monkeypatch.setenv(variable, value.format(proxy))
            assert _answers("http://hub.invalid")
            monkeypatch.setenv("no_proxy", "hub.invalid")
        elif variable == "all_proxy":
            monkeypatch.setenv(variable, f"http://{proxy}")
            assert _answers("https://hub.invalid")
            return
        assert not _answers("http://hub.invalid")
        assert _answers(f"http://{proxy}")


def test_the_backbone_of_a_checkpoint_of_ours_is_loaded_like_one_of_timms(tmp_path):
    weights = weights_of()
    ours = {f"backbone.{name}": value for name, value in weights.items()} | {"heads.0.weight": torch.zeros(3, 4)}
    torch.save({"state_dict": ours}, tmp_path / "last.pth.tar")
    assert_backbone(make(path=tmp_path / "last.pth.tar"), weights)


# Families whose weights timm filters before it loads them, by the names it finds.
@pytest.mark.parametrize(
    "arch", ["test_convnext", "test_vit", "edgenext_xx_small", "poolformer_s12", "tiny_vit_5m_224"]
)
def test_a_checkpoint_of_ours_is_loaded_whatever_timm_does_to_other_weights(tmp_path, arch):
    torch.manual_seed(1)
    model = create_multi_label_model(arch, SPACE, image_size=(3, 224, 224), projection_dim=8)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "last.pth.tar")
    loaded = make(arch, tmp_path / "last.pth.tar", size=(3, 224, 224))
    assert_backbone(loaded, model.backbone.state_dict())
    assert "state_dict" not in loaded.backbone.pretrained_cfg


def test_what_a_file_lacks_is_named(tmp_path, caplog):
    weights = weights_of("resnet18")
    torch.save({name: value for name, value in weights.items() if name != "conv1.weight"}, tmp_path / "weights.pth")
    make("resnet18", tmp_path / "weights.pth")
    assert caplog.messages[-1] == "--pretrained-path: the file lacks conv1.weight, which keep their first weights"


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
def test_a_file_for_another_architecture_is_told_in_a_sentence(tmp_path, others):
    torch.save(weights_of(others), tmp_path / "others.pth")
    with pytest.raises(UsageError, match=r"--pretrained-path: .*others\.pth does not fit test_resnet: .") as caught:
        make(path=tmp_path / "others.pth")
    assert "\n" not in str(caught.value)


def test_a_file_for_a_deeper_or_shallower_sibling_is_told_in_a_sentence(tmp_path):
    for depth, other in ((2, 3), (3, 2)):  # shapes fit as far as they go, which timm is content with
        kwargs = {"model_kwargs": {"layers": (depth, 1, 1, 1)}}
        torch.save(timm.create_model("test_resnet", layers=(other, 3, 3, 3)).state_dict(), tmp_path / "sibling.pth")
        with pytest.raises(UsageError, match=r"does not fit test_resnet: \d+ tensors of the model are missing in it"):
            make(path=tmp_path / "sibling.pth", **kwargs)


@pytest.mark.parametrize("name", ["none.pth", "garbage.pth", "garbage.safetensors"])
def test_a_local_file_that_cannot_be_read_is_told_in_a_sentence(tmp_path, name):
    if name != "none.pth":
        (tmp_path / name).write_bytes(b"garbage")
    with pytest.raises(UsageError, match=f"--pretrained-path: .*{name}") as caught:
        make(path=tmp_path / name)
    assert "\n" not in str(caught.value)


def test_other_mistakes_keep_their_own_sentences(tmp_path):
    torch.save(weights_of(), tmp_path / "weights.pth")
    for path in (None, tmp_path / "weights.pth"):
        with pytest.raises(UsageError, match="test_resnet does not take foo=1"):
            make(path=path, model_kwargs={"foo": 1})
    load = torch.nn.Module.load_state_dict
    with pytest.raises(UsageError), pretrained_weights("test_resnet", __file__):
        raise RuntimeError
    assert torch.nn.Module.load_state_dict is load
