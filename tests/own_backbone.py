"""A backbone as users have it in a package of their own."""

from diffusion.models.unet import UNet


class OwnUNet(UNet):
    """The same network under another name."""
