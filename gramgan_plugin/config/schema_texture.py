"""The values that the texture loss's options may have, beyond their annotations."""

from gramgan_plugin.config.keys import Key
from gramgan_plugin.functional.texture_options import CHOICES
from gramgan_plugin.search.kinds import KINDS, new_name

FEATURES: dict[str, Key] = {
    "layer": Key("text", "a layer of VGG19, such as conv1_2 or relu2_1", needed="always"),
    "vgg_weights": Key("path", "a file with torchvision's key names; null: torchvision's weights"),
}
# Defaults and descriptions are those of the loss.
TEXTURE: dict[str, Key] = {
    **{name: Key("text", "", choices=choices) for name, choices in CHOICES.items()},
    "database": Key("path", ""),
    "database_index": Key("text", "", choices=KINDS, hint=new_name),
    "top_k": Key("whole", "", least=1),
    "stride": Key("whole", "", least=1),
    "features": Key("section", "", keys=FEATURES),
}
# Options whose files the model opens before it constructs the loss.
NEEDS_FILES = frozenset({"database", "features"})
