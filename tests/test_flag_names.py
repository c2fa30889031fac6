import pytest

from runtime.errors import UsageError
from training.flag_names import naming_flags


def test_settings_in_a_message_become_flags() -> None:
    with pytest.raises(UsageError) as error, naming_flags("split_bn", global_pool="--gp"):
        raise UsageError("split_bn needs views; choose a global_pool, not split_bn_2 or runs/split_bn/split_bn.pth")
    assert str(error.value) == ("--split-bn needs views; choose a --gp, not split_bn_2 or runs/split_bn/split_bn.pth")


def test_a_function_can_be_decorated() -> None:
    @naming_flags("split_bn")
    def refuse() -> None:
        raise UsageError("split_bn is refused")

    for _ in range(2):
        with pytest.raises(UsageError, match="--split-bn is refused"):
            refuse()


def test_what_the_user_wrote_keeps_its_words() -> None:
    with pytest.raises(UsageError) as error, naming_flags("output", "device"):
        raise UsageError("the run's output has no class 'an output' or 'device'; the table's device is not the run's")
    expected = "the run's --output has no class 'an output' or 'device'; the table's --device is not the run's"
    assert str(error.value) == expected


def test_a_setting_with_a_value_becomes_a_flag_with_a_value() -> None:
    with pytest.raises(UsageError) as error, naming_flags("img_size", "data=", **{"validation=": "--holdout"}):
        raise UsageError("data has no validation: give data=DATA, validation=TABLE or img_size=64")
    assert str(error.value) == "data has no validation: give --data DATA, --holdout TABLE or --img-size 64"
