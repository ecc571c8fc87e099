"""Any net of the package timm, with our embedding layer in the place of its classifier."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from facenet.errors import ConfigError, nearest, one_line
from facenet.foreign import install_command
from facenet.models.layers import L2Normalize


class TimmNet(nn.Module):
    """Images (B, 3, H, W), floats in [-1, 1], to unit embeddings (B, D), by a net of timm.

    The images are brought to the mean and the standard deviation that the net's published weights were trained with.
    These are buffers, so that an encoder keeps them.

    Args:
        name: Of the net in timm, such as "resnet18" or "vit_tiny_patch16_224.augreg_in21k".
        embedding_dim: D.
        input_size: (H, W).
        dropout: Share of features dropped before the embedding layer while training.
        published: Whether to begin with the published weights, which timm keeps in a cache of its own.

    Raises:
        ConfigError: no package timm, no such net, or one that can not have these options.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, name: str, *, embedding_dim: int, input_size: tuple[int, int], dropout: float, published: bool = False
    ) -> None:
        super().__init__()
        self.embedding_dim, self.input_size = embedding_dim, input_size
        timm = package()
        if not timm.is_model(name.partition(".")[0]):
            raise ConfigError(f"model.timm: timm has no net {name!r}{nearest(name, timm.list_models())}")
        try:
            config = timm.get_pretrained_cfg(name)
            sized = {"img_size": input_size} if config.fixed_input_size else {}
            self.body = timm.create_model(
                name, pretrained=published, num_classes=embedding_dim, drop_rate=dropout, **sized
            )
        except Exception as error:  # of many kinds, by the net
            what = "its published weights can not be had" if published else "timm can not build it so"
            raise ConfigError(f"model.timm={name}: {what} ({one_line(error)})") from error
        if not isinstance(self.body.get_classifier(), nn.Linear):
            raise ConfigError(f"model.timm={name}: it has no single classifier to put an embedding layer in its place")
        for key in ("mean", "std"):
            self.register_buffer(key, torch.tensor(getattr(config, key)).view(3, 1, 1))
        self.normalize = L2Normalize()

    def forward(self, images: Tensor) -> Tensor:
        """Return unit embeddings (B, D) in float32."""
        return self.normalize(self.body(((images + 1) / 2 - self.mean) / self.std))

    def embedding_layer(self) -> nn.Module:
        """Return what stands for the classifier."""
        return self.body.get_classifier()


def package() -> Any:
    """Return the module ``timm``; raises ConfigError without it."""
    try:
        import timm
    except ImportError as error:
        raise ConfigError(f"model.name=timm needs the package timm; {install_command('timm')}") from error
    return timm
