"""PyTorch's number format, memory layout, TF32, and whether steps are recorded as CUDA graphs."""

from typing import NamedTuple

import torch

from runtime.errors import UserError

from .loss_scale import FACTOR, PATIENCE, first_scale
from .torch_cpu import check_compile


class Arithmetic(NamedTuple):
    """The settings of ``--engine torch``; the defaults are MXNet's arithmetic, up to rounding."""

    dtype: str = 'float32'  # of activations, and of weights as convolutions and matrix products see them
    channels_last: bool = False
    allow_tf32: bool = False
    cuda_graphs: str = 'auto'  # or 'on', 'off'
    compile: str = 'off'  # or 'auto', 'on': on the CPU, through torch.compile

    def check(self, device: torch.device) -> None:
        """Raise UserError for what ``device`` cannot do."""
        if self.cuda_graphs == 'on' and device.type != 'cuda':
            raise UserError('--cuda-graphs on needs a card, as in --gpus 0')
        check_compile(self.compile, device)
        if self.dtype == 'bfloat16' and device.type == 'cuda' and torch.cuda.get_device_capability(device) < (8, 0):
            raise UserError(f'--dtype bfloat16: {torch.cuda.get_device_name(device)} has none; take float16')

    def apply(self) -> None:
        """Set what PyTorch sets for the whole process: TF32."""
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = self.allow_tf32

    def autocast(self, device: torch.device) -> torch.autocast:
        """A context in which convolutions and matrix products take ``dtype``. Parameters, λ, moving statistics and sums
        stay in float32.

        Nothing is cached: a weight is used once a pass, and a recorded graph must not read what was cast outside it.
        """
        return torch.autocast(
            device.type, dtype=getattr(torch, self.dtype), enabled=self.dtype != 'float32', cache_enabled=False
        )

    def scaler(self, device: torch.device, batch_size: int) -> torch.amp.GradScaler:
        """What scales the loss so that gradients do not vanish in float16; for the other formats it does nothing.

        It begins and moves as MXNet's does (``train.engines.loss_scale``).
        """
        return torch.amp.GradScaler(
            device.type,
            init_scale=first_scale(batch_size),
            growth_factor=FACTOR,
            backoff_factor=1 / FACTOR,
            growth_interval=PATIENCE,
            enabled=self.dtype == 'float16',
        )

    def laid_out(self, images: torch.Tensor) -> torch.Tensor:
        """``images`` (N, C, H, W) in the memory layout that is asked for."""
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images

    def records(self, device: torch.device) -> bool:
        """Whether steps are recorded and replayed."""
        return self.cuda_graphs != 'off' and device.type == 'cuda'
