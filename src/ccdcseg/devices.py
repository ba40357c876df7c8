"""The device that computes, checked before anything else is done."""

from ccdcseg.errors import UserError


def usable_device(wanted: str) -> str:
    """The device to compute on.

    Args:
        wanted: "cpu", "cuda" or "mps", or "auto": a CUDA GPU where there is one, else the CPU.

    Returns:
        "cpu", "cuda" or "mps".

    Raises:
        UserError: there is no such device here, or PyTorch cannot use it.
    """
    import torch  # noqa: PLC0415 - slow

    if wanted not in ("cpu", "cuda", "mps", "auto"):
        raise UserError(
            f"There is no device {wanted!r}.",
            "Use cpu, cuda, mps or auto; CUDA_VISIBLE_DEVICES=1 takes the second of several GPUs.",
        )
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is a build without CUDA"
        raise UserError(
            f"There is no CUDA GPU that PyTorch can use: version {torch.__version__} {built}.",
            "Use --device cpu, or see `nvidia-smi` and https://pytorch.org/get-started/locally.",
        )
    if wanted == "mps" and not torch.backends.mps.is_available():
        raise UserError("There is no Apple GPU that PyTorch can use.", "Use --device cpu.")
    return wanted
