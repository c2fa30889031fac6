"""The base class of the loss modules, which checks, stores and shows their temperature."""

from torch import nn

from simclr.joint_batch import check_temperature


class TemperatureLoss(nn.Module):
    """A loss module without parameters or state, whose only setting is the temperature.

    Args:
        temperature: divisor of the cosine similarities, finite and above 0. A lower temperature gives the most similar
            negatives more weight.

    Raises:
        ValueError: the temperature is not a finite number above 0.
    """

    def __init__(self, temperature: float = 0.5) -> None:
        super().__init__()
        check_temperature(temperature)
        self.temperature = temperature

    def extra_repr(self) -> str:
        """Return the text between the parentheses of the module's repr."""
        return f"temperature={self.temperature}"
