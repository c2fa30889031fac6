import pickle

import pytest
import torch
from torch import nn

import timm
from catalog.label_space import LabelSpace
from runtime.errors import UsageError
from timm.models import group_parameters
from timm.models.multi_label import MultiLabelModel, create_multi_label_model
from timm.optim import create_optimizer_v2

torch.set_num_threads(1)

SPACE = LabelSpace({"color": ("blue", "red", "teal"), "forward": ("no", "yes"), "a.b c": ("p", "q")})
COUNTS = {"color": 3, "forward": 2, "a.b c": 2}

# One model of each family: (name, side of an image in pixels, D).
SMALL = {"swin_tiny_patch4_window7_224": {"embed_dim": 8, "depths": (1, 1, 2, 1), "num_heads": (1, 1, 2, 2)}}
FAMILIES = [
    ("test_efficientnet", 32, 256),
    ("test_resnet", 32, 96),
    ("test_convnext", 32, 64),
    ("test_vit", 32, 64),
    ("mobilenetv3_small_050", 32, 1024),
    ("swin_tiny_patch4_window7_224", 64, 64),
    ("regnetx_002", 32, 368),
    ("test_maxvit", 64, 128),
    ("test_coatnet", 64, 128),
]


def make(arch="test_resnet", size=(3, 32, 32), space=SPACE, **kwargs):
    torch.manual_seed(0)
    return create_multi_label_model(arch, space, image_size=size, **kwargs)


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family[0])
def family(request):
    arch, side, features = request.param
    return make(arch, (3, side, side), model_kwargs=SMALL.get(arch)), torch.randn(4, 3, side, side), features


def test_training_gives_logits_and_projections_and_evaluation_the_logits_alone(family):
    model, images, features = family
    logits, projections = model.train()(images)
    assert {name: tuple(values.shape) for name, values in logits.items()} == {n: (4, k) for n, k in COUNTS.items()}
    assert projections.shape == (4, 64)
    with torch.no_grad():
        logits = model.eval()(images)
        assert isinstance(logits, dict)
        assert {name: tuple(values.shape) for name, values in logits.items()} == {n: (4, k) for n, k in COUNTS.items()}
        h = model.forward_features(images)
        torch.testing.assert_close(h, model.backbone(images))
    assert h.shape == (4, model.num_features) == (4, features)


def test_the_gradient_reaches_every_parameter(family):
    model, images, _ = family
    model.train().zero_grad()
    logits, projections = model(images)
    loss = sum(values.logsumexp(1).sum() for values in logits.values()) + projections.square().sum()
    loss.backward()
    # The gradient may be 0, as for a bias right before a batch norm, but every parameter is in the graph.
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    for part in (model.backbone, *model.heads, model.projector):
        assert any(parameter.grad.abs().sum() > 0 for parameter in part.parameters())


def test_gradient_checkpointing_changes_no_gradient(family):
    model, images, _ = family
    grads = []
    for enable in (False, True):
        torch.manual_seed(0)
        model.train().zero_grad()
        model.set_grad_checkpointing(enable)
        model(images)[1].square().sum().backward()
        grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    model.set_grad_checkpointing(False)
    assert len(grads[0]) == len(grads[1]) > 0
    for plain, checkpointed in zip(*grads, strict=True):
        torch.testing.assert_close(plain, checkpointed, rtol=1e-3, atol=1e-5)


def test_layers_are_grouped_as_in_the_backbone(family):
    model, _, _ = family
    for coarse in (False, True):
        expected = group_parameters(model.backbone, model.backbone.group_matcher(coarse=coarse), reverse=True)
        groups = group_parameters(model, model.group_matcher(coarse=coarse), reverse=True)
        assert {name: groups[f"backbone.{name}"] for name in expected} == expected
        heads = {group for name, group in groups.items() if not name.startswith("backbone.")}
        assert heads == {max(groups.values())}


def test_layer_decay_covers_every_parameter_once_and_leaves_the_heads_their_full_rate(family):
    model, _, _ = family
    optimizer = create_optimizer_v2(model, "adamw", lr=1.0, weight_decay=0.05, layer_decay=0.7)
    names = {parameter: name for name, parameter in model.named_parameters()}
    scales, decays = {}, {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert names[parameter] not in scales
            scales[names[parameter]] = group["lr_scale"]
            decays[names[parameter]] = group["weight_decay"]
    assert scales.keys() == set(names.values())
    assert {scale for name, scale in scales.items() if not name.startswith("backbone.")} == {1.0}
    layers = group_parameters(model, model.group_matcher(), reverse=True)
    by_layer = [scales[name] for name in sorted(scales, key=layers.__getitem__)]
    assert by_layer == sorted(by_layer)
    assert by_layer[0] < 0.7
    assert all(decays[name] == 0 for name in model.no_weight_decay() & decays.keys())
    assert decays["heads.0.weight"] == 0.05


def test_a_vits_position_embedding_takes_no_weight_decay():
    model = make("test_vit")
    assert "backbone.pos_embed" in model.no_weight_decay()
    optimizer = create_optimizer_v2(model, "adamw", weight_decay=0.05)
    free = {id(p) for group in optimizer.param_groups if group["weight_decay"] == 0 for p in group["params"]}
    assert id(model.backbone.pos_embed) in free
    assert id(model.projector[0].weight) not in free


def test_head_dropout_acts_on_the_heads_alone_and_differs_between_them():
    pair = LabelSpace({"a": ("x", "y"), "b": ("x", "y")})
    model = make(space=pair, drop_rate=0.5).train()
    model.backbone.eval()
    model.heads[1].load_state_dict(model.heads[0].state_dict())
    images = torch.randn(4, 3, 32, 32)
    first, second = model(images), model(images)
    torch.testing.assert_close(model.forward_features(images), model.forward_features(images))
    torch.testing.assert_close(first[1], second[1])
    assert not torch.allclose(first[0]["a"], second[0]["a"])
    assert not torch.allclose(first[0]["a"], first[0]["b"])
    model.eval()
    torch.testing.assert_close(model(images)["a"], model(images)["b"])


def test_dimension_0_leaves_the_projection_head_out():
    model = make(projection_dim=0)
    assert not any(name.startswith("projector") for name in model.state_dict())
    assert model.train()(torch.randn(2, 3, 32, 32))[1] is None
    assert {id(p) for p in model.head_parameters()} == {id(p) for p in model.heads.parameters()}


def test_the_head_parameters_are_all_except_the_backbone():
    model = make()
    assert len(model.head_parameters()) == 2 * 3 + 2
    assert {id(p) for p in model.head_parameters()} == {
        id(p) for name, p in model.named_parameters() if not name.startswith("backbone.")
    }


def test_pooling_that_doubles_the_features_is_measured():
    model = make(global_pool="catavgmax")
    assert model.num_features == 192
    assert model.eval()(torch.randn(1, 3, 32, 32))["color"].shape == (1, 3)


@pytest.mark.parametrize("arch", ["test_resnet", "test_vit"])
def test_the_image_size_sets_channels_and_a_vits_grid(arch):
    model = make(arch, (1, 48, 32))
    assert model.config["image_size"] == [1, 48, 32]
    assert model.eval()(torch.randn(1, 1, 48, 32))["color"].shape == (1, 3)


def test_without_an_image_size_the_backbones_own_is_taken():
    model = create_multi_label_model("test_resnet", SPACE)
    assert tuple(model.config["image_size"]) == tuple(model.pretrained_cfg["input_size"]) == (3, 160, 160)


def test_the_backbone_is_timms_own_with_the_arguments_given():
    model = make(drop_path_rate=0.3, model_kwargs={"act_layer": "silu"})
    expected = timm.create_model("test_resnet", num_classes=0, drop_path_rate=0.3, act_layer="silu")
    assert str(model.backbone) == str(expected)
    assert "SiLU" in str(model.backbone)
    assert "DropPath" in str(model.backbone)


def test_measuring_features_leaves_batch_norm_and_mode_as_they_were():
    backbone = timm.create_model("test_resnet", num_classes=0).train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    MultiLabelModel(backbone, SPACE, image_size=(3, 32, 32))
    assert backbone.training
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_a_label_space_without_attributes_leaves_the_projection_alone():
    model = make(space=LabelSpace({}))
    logits, projections = model.train()(torch.randn(2, 3, 32, 32))
    assert logits == {}
    assert projections.shape == (2, 64)


def test_a_model_pickles():
    model = make().eval()
    copy = pickle.loads(pickle.dumps(model))
    images = torch.randn(1, 3, 32, 32)
    assert copy.label_space == model.label_space
    assert torch.equal(copy(images)["a.b c"], model(images)["a.b c"])


def test_a_feature_that_a_backbone_lacks_is_one_sentence():
    model = MultiLabelModel(nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), SPACE, image_size=(3, 2, 2))
    with pytest.raises(UsageError, match="Sequential has no gradient checkpointing: leave grad_checkpointing out"):
        model.set_grad_checkpointing()
    with pytest.raises(UsageError, match="Sequential has no order of layers: leave layer_decay out"):
        model.group_matcher()
    assert model.no_weight_decay() == set()
