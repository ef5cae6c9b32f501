"""What can be known about a training before it starts: numbers, no opinions.

`values` holds the numbers as frozen dataclasses without torch, so that rules stay instant to test;
`data`, `model` and `gradient` measure them, `measure` all three, and `text` puts them in words.
"""

from optselect.profile.values import DataProfile, GradientProfile, LabelKind, ModelProfile, Profile

__all__ = ["DataProfile", "GradientProfile", "LabelKind", "ModelProfile", "Profile"]
