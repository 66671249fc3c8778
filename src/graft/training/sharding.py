"""FSDP2: weights, gradients and optimizer states in shards over all processes (`trainer.strategy=fsdp`).

Every process holds a stretch of each parameter and gathers whole ones block by block, where a pass needs them (Zhao et
al., 2023, "PyTorch FSDP"). What is written is whole, and the same as that of one process.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import ModelParallelStrategy, ParallelStrategy
from pytorch_lightning.trainer.states import TrainerStatus
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from graft.backbones.base import Backbone
from graft.backbones.checkpointing import listed_layers
from graft.backbones.residual import residual_blocks
from graft.errors import GraftError
from graft.heads.base import BOTTLENECK, has_bottleneck

if TYPE_CHECKING:
    from graft.module import TransferModule


class FullySharded(ModelParallelStrategy):
    """Shards a copy of backbone and heads for each fit, validation, test and prediction.

    torch has no way back from `fully_shard`. So the module has the copy as long as a Trainer works with it, and then
    its own backbone and heads again with the copy's weights, on the CPU of every process.
    """

    def __init__(self) -> None:
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)
        self._whole: tuple[Backbone, nn.ModuleDict] | None = None

    def setup_environment(self) -> None:
        """Let all processes share the data."""
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def shard(self, module: "TransferModule") -> None:
        """Put sharded copies of backbone and heads in their places; everything behind a process's own device."""
        try:
            from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
        except ImportError as error:  # of torch before 2.6
            raise GraftError(f"trainer.strategy=fsdp needs torch 2.6, and this is {torch.__version__}.") from error
        mesh = self.device_mesh["data_parallel"]
        self._whole = (module.backbone, module.heads)
        backbone, heads = copy.deepcopy(self._whole)  # as one, where they share weights
        for network in (backbone, heads):
            network.to(memory_format=torch.contiguous_format)  # others cannot be sharded
        if self._layer_sync is not None:
            for network in (backbone, heads):
                self._layer_sync.apply(network)  # in place, as none of the two is itself a BatchNorm
        for unit in units(backbone, heads):
            # Sharded again after each pass: what is frozen and thawed between steps is the shards.
            fully_shard(unit, mesh=mesh, reshard_after_forward=True)
        for name in ("tokens", "local"):
            register_fsdp_forward_method(backbone, name)
        module.backbone, module.heads = backbone, heads

    def on_validation_start(self) -> None:
        """Validate BatchNorm's statistics of the first process, which are those that are saved."""
        assert self.lightning_module is not None
        for buffer in self.lightning_module.buffers():
            distributed.broadcast(buffer, 0)

    def teardown(self) -> None:
        """Give the module its own backbone and heads back; after an error, which others may not have, as they were."""
        module: Any = self.lightning_module
        if self._whole is not None:
            if module.trainer.state.status != TrainerStatus.INTERRUPTED:
                for ours, sharded in zip(self._whole, (module.backbone, module.heads), strict=True):
                    take_over(ours, sharded)
            module.backbone, module.heads = self._whole
            self._whole = None
            self._reset_optimizers_and_schedulers()
        super().teardown()
        module.cpu()

    # What is written is whole

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """All weights on the CPU of the first process, nothing in the others, which take part."""
        assert self.lightning_module is not None
        return self._of_first(self.lightning_module.state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The optimizer's state in the same way."""
        inner = optimizer._optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        content = inner.state_dict()
        states = {number: self._of_first(state) for number, state in content["state"].items()}
        return content | {"state": states} if self.is_global_zero else {}

    def _of_first(self, values: Mapping[str, Any]) -> dict[str, Any]:
        gathered = ((name, whole(value)) for name, value in values.items())
        return {name: value for name, value in gathered if self.is_global_zero}

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Take each process's stretch of the weights of a checkpoint."""
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        stored = {name: in_shards(value, own.get(name)) for name, value in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(stored, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take each process's stretch of the optimizer's state."""
        for optimizer, content in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            numbers = [number for group in content["param_groups"] for number in group["params"]]
            own = dict(zip(numbers, parameters_of(optimizer), strict=False))  # load_state_dict refuses another number
            states = {
                number: {name: in_shards(value, own.get(number)) for name, value in state.items()}
                for number, state in content["state"].items()
            }
            optimizer.load_state_dict(content | {"state": states})

    # Lightning's own write and read shards, with all processes at once.
    load_checkpoint = ParallelStrategy.load_checkpoint
    save_checkpoint = ParallelStrategy.save_checkpoint
    lightning_restore_optimizer = True  # a property of Lightning's


def units(backbone: Backbone, heads: nn.ModuleDict) -> Iterator[nn.Module]:
    """What is gathered as one, inner modules first: blocks, what is left of the backbone, parts of heads."""
    found = [*(residual_blocks(backbone.network) or listed_layers(backbone.network)), backbone]
    for head in heads.values():
        parts = (head.get_submodule(BOTTLENECK), head.get_submodule("classifier")) if has_bottleneck(head) else (head,)
        found += parts
    yield from (unit for unit in found if any(True for _ in unit.parameters()))


@torch.no_grad()
def take_over(ours: nn.Module, sharded: nn.Module) -> None:
    """Copy a sharded network's weights, and the first process's buffers, into one that is whole."""
    theirs = sharded.state_dict()
    for name, value in ours.state_dict().items():
        value.copy_(whole(theirs[name]))


def whole(value: Any) -> Any:
    """A tensor on the CPU, gathered from all processes where it lies in shards; anything else as it is."""
    if isinstance(value, DTensor):
        value = value.full_tensor()
    return value.detach().cpu() if isinstance(value, Tensor) else value


def in_shards(value: Any, like: Tensor | None) -> Any:
    """This process's stretch of a tensor in the place of another one of its shape; anything else as it is."""
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    value = value.to(like.device).contiguous()
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


def parameters_of(optimizer: Optimizer) -> list[nn.Parameter]:
    """Parameters in the order in which a state dict numbers them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
