"""A backbone is timm's model without its classifier, and every refusal is one sentence."""

from typing import Any

import pytest
import torch

import timm
from catalog.label_space import LabelSpace
from runtime.errors import UsageError
from timm.models.backbone import create_backbone, measure_features, size_kwargs
from timm.models.multi_label import create_multi_label_model

torch.set_num_threads(1)


def test_a_backbone_has_no_classifier() -> None:
    torch.manual_seed(0)
    backbone = create_backbone("test_resnet").eval()
    assert backbone(torch.zeros(1, 3, 32, 32)).shape == (1, 96)
    assert str(backbone) == str(timm.create_model("test_resnet", num_classes=0))


@pytest.mark.parametrize(
    ("arch", "fixed"), [("test_vit", True), ("test_vit.no_such_tag", True), ("test_resnet", False)]
)
def test_the_image_size_is_an_argument_only_where_weights_depend_on_it(arch: str, fixed: bool) -> None:
    assert size_kwargs(arch, (1, 48, 32)) == ({"img_size": [48, 32]} if fixed else {})


def test_features_are_measured_after_pooling() -> None:
    for pooling, features in (("avg", 96), ("catavgmax", 192)):
        assert measure_features(create_backbone("test_resnet", global_pool=pooling), (3, 32, 32)) == features


def make(arch: str, size: tuple[int, int, int] = (3, 32, 32), **kwargs: Any) -> None:
    create_multi_label_model(arch, LabelSpace({"color": ("blue", "red")}), image_size=size, **kwargs)


@pytest.mark.parametrize(
    ("arch", "kwargs", "sentence"),
    [
        ("no_such_net", {}, "timm has no model 'no_such_net': timm.list_models.. lists all"),
        ("tset_resnet", {}, r"timm has no model 'tset_resnet': is it (.* or )?test_resnet( or .*)?\?"),
        ("a/b", {}, "a/b: .*no source prefix"),
        ("test_resnet.nope", {}, "Invalid pretrained tag"),
        ("test_vit", {"drop_block_rate": 0.1}, "test_vit does not take drop_block_rate=0.1: leave it out"),
        ("test_resnet", {"model_kwargs": {"foo": True}}, "test_resnet does not take foo=True"),
        ("test_resnet", {"model_kwargs": {"num_classes": 5}}, "leave num_classes out of the backbone's arguments"),
        (
            "test_resnet",
            {"model_kwargs": {"features_only": True}},
            "leave features_only out of the backbone's arguments",
        ),
        ("test_resnet", {"model_kwargs": {"act_layer": "no"}}, "test_resnet cannot be made with .*'act_layer': 'no'"),
        ("test_resnet", {"global_pool": "no"}, "test_resnet: Invalid pool type: no"),
        ("test_resnet", {"global_pool": ""}, r"gives features of shape .*choose a global_pool such as avg"),
        ("test_vit", {"size": (3, 40, 40)}, "the backbone takes no images of 3x40x40 .*divisible by patch size"),
        ("test_coatnet", {"size": (3, 50, 50)}, "the backbone takes no images of 3x50x50"),
    ],
)
def test_a_refusal_by_the_backbone_is_one_sentence(arch, kwargs, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        make(arch, **kwargs)
    assert "\n" not in str(caught.value)
