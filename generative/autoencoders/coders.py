"""Encoders and decoders that autoencoders share: dense ones, and convolutional ones for frames."""

from __future__ import annotations

from torch import nn

from generative.autoencoders.data_form import DataForm
from generative.likelihoods import require
from generative.networks.cnn import ConvDecoder, ConvEncoder
from generative.networks.mlp import MLP


def check_coders(form: DataForm, latent: int, hidden: tuple[int, ...], channels: tuple[int, ...]) -> None:
    """Of a configuration. Raises ValueError where the coders can't be built."""
    require(latent >= 1, "latent", latent, "at least 1")
    require(min((*hidden, *channels, 1)) >= 1, "hidden and channels", (*hidden, *channels), "at least 1 each")
    if channels:
        require(form.is_frames, "shape", form.shape, "(H, W, C) where there are channels; leave them out for vectors")
        fits = min(form.shape[:2]) >= 2 ** len(channels)
        require(fits, "channels", channels, f"fewer levels: each halves the sides of {form.shape}")


def encoder(
    form: DataForm,
    hidden: tuple[int, ...],  # widths of a dense one
    channels: tuple[int, ...],  # of a convolutional one, from the image on; none: dense
    activation: str,
    out_features: int,
    extra: int = 0,  # planes of frames, or numbers of vectors, beside the data: a mask
) -> nn.Module:
    """Inputs [B, D + extra] or [B, C + extra, H, W] → [B, out_features]."""
    if channels:
        num_channels, height, width = form.inner
        return ConvEncoder((num_channels + extra, height, width), channels, out_features, activation)
    planes = extra * (form.size // form.inner[0]) if form.is_frames else extra
    dense = MLP(form.size + planes, hidden, out_features, activation)
    return nn.Sequential(nn.Flatten(), dense) if form.is_frames else dense


def decoder(
    form: DataForm,
    hidden: tuple[int, ...],  # widths, in the encoder's order, as channels are
    channels: tuple[int, ...],
    activation: str,
    in_features: int,
    parameters: int = 1,  # P, of each dimension of the data
) -> nn.Module:
    """Codes [B, in_features] → [B, D·P] or [B, C·P, H, W], raw."""
    first, *sides = form.inner
    if channels:
        return ConvDecoder(in_features, channels[::-1], (first * parameters, sides[0], sides[1]), activation)
    dense = MLP(in_features, hidden[::-1], form.size * parameters, activation)
    return nn.Sequential(dense, nn.Unflatten(1, (first * parameters, *sides))) if form.is_frames else dense
