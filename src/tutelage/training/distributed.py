"""Several processes that train one model as one process would.

Every process holds the whole model, takes its share of each step's examples, and adds up gradients and sums with
the others; losses are divided by the count of the *whole* step, so a sum over processes is what one
process would have computed. With one process every function here does nothing and costs nothing. Functions that
add up or collect are called by all processes in the same order, or all of them wait.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeGuard, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tutelage.errors import TrainingError

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

Item = TypeVar("Item")

_PATIENCE = timedelta(minutes=30)  # how long one process waits for another before it gives up
_BUCKET = 2**24  # gradients added up at a time


class LostContact(TrainingError):
    """Another process ended, or cannot be reached."""


@dataclass(frozen=True, slots=True)
class World:
    """Which process this is, of how many."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and tells how far things are."""
        return self.rank == 0


def world() -> World:
    """This process among those that train together; one of one when there are no others."""
    if not (dist.is_available() and dist.is_initialized()):
        return World()
    return World(dist.get_rank(), dist.get_world_size())


@contextmanager
def joined(size: int) -> Iterator[World]:
    """Stand among `size` processes inside the block, as the environment says (RANK, WORLD_SIZE, LOCAL_RANK).

    A group that the surroundings have already formed is used and left as it is. Raises TrainingError when there
    are not `size` processes: training would go on with a part of every step.
    """
    found = world().size if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", "1"))
    if found != size:
        raise TrainingError(
            f"{size} processes were asked for, and {found} came up",
            hint="start them with --processes, or with torchrun and the same number",
        )
    if size == 1 or dist.is_initialized():
        yield world()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)
    try:
        yield world()
        dist.barrier()  # nobody leaves while another one still needs it
    finally:
        dist.destroy_process_group()


def share(items: Sequence[Item], weight: Callable[[Item], int]) -> list[Item]:
    """The items that fall to this process, in their order. All get about the same weight; one may get none."""
    here = world()
    if here.size == 1:
        return list(items)
    loads = [0] * here.size
    mine = []
    for index in sorted(range(len(items)), key=lambda index: -weight(items[index])):
        lightest = loads.index(min(loads))
        loads[lightest] += weight(items[index])
        if lightest == here.rank:
            mine.append(index)
    return [items[index] for index in sorted(mine)]


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Add up each parameter's gradient over all processes; a process that had no examples adds nothing."""
    if world().size == 1:
        return
    # What is held in parts has been added up in the backward pass.
    trained = [parameter for parameter in parameters if not is_part(parameter)]
    for parameter in trained:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    bucket: list[Tensor] = []
    for parameter in trained:
        assert parameter.grad is not None
        bucket.append(parameter.grad)
        if sum(map(Tensor.numel, bucket)) >= _BUCKET:
            sum_tensors(bucket)
            bucket = []
    sum_tensors(bucket)


def sum_tensors(tensors: Sequence[Tensor]) -> None:
    """Add up tensors over all processes, in place and in one message."""
    if world().size == 1 or not tensors:
        return
    flat = torch.cat([tensor.detach().flatten() for tensor in tensors]).to(_device())
    with _contact():
        dist.all_reduce(flat)
    totals = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, total in zip(tensors, totals, strict=True):
        tensor.detach().copy_(total.view_as(tensor))


def sum_scalars(*values: float) -> tuple[float, ...]:
    """Add up numbers over all processes."""
    total = torch.tensor(values, dtype=torch.float64)
    sum_tensors([total])
    return tuple(total.tolist())


def most(count: int) -> int:
    """The largest count of all processes."""
    if world().size == 1:
        return count
    largest = torch.tensor(count, device=_device())
    with _contact():
        dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


def is_part(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether the processes hold a part of this tensor each."""
    loaded = sys.modules.get("torch.distributed.tensor")  # slow to import; where nobody has, no tensor is one
    return loaded is not None and isinstance(tensor, loaded.DTensor)


def whole(tensor: Tensor) -> Tensor:
    """A tensor with all its parts, where the processes hold a part each."""
    return tensor.full_tensor() if is_part(tensor) else tensor


def parted(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor, where `like` is held in parts; the tensor itself otherwise."""
    if not is_part(like) or not tensor.ndim:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor.to(like.device), like.device_mesh, like.placements)


def total_norm(gradients: Sequence[Tensor]) -> Tensor:
    """The norm of all gradients together, some of which may be held in parts."""
    parts = [gradient for gradient in gradients if is_part(gradient)]
    rest = [gradient for gradient in gradients if not is_part(gradient)]
    norms = [whole(torch.nn.utils.get_total_norm(each)) for each in (parts, rest) if each]
    return torch.stack(norms).norm() if norms else torch.zeros(())


def by_layout(parameters: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """Parameters that every process holds whole, then those held in parts: no operation takes both at once."""
    rest: list[nn.Parameter] = []
    parts: list[nn.Parameter] = []
    for parameter in parameters:
        (parts if is_part(parameter) else rest).append(parameter)
    return [group for group in (rest, parts) if group]


def collect(mine: Sequence[tuple[int, Item]], count: int) -> list[Item]:
    """Put together what the processes made: `mine` holds (place, item), and each of `count` places is some one's."""
    parts: list[Sequence[tuple[int, Item]]] = [mine]
    if world().size > 1:
        parts = [[] for _ in range(world().size)]
        with _contact():
            dist.all_gather_object(parts, mine)
    made = {place: item for part in parts for place, item in part}
    return [made[place] for place in range(count)]


def _device() -> torch.device:
    """Where the processes' messages must be."""
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


@contextmanager
def _contact() -> Iterator[None]:
    """Raises LostContact when a message between processes fails."""
    try:
        yield
    except RuntimeError as error:
        raise LostContact(
            f"contact with the other processes was lost: {str(error).splitlines()[0]}",
            where=f"process {world().rank + 1} of {world().size}",
            hint="one of them has ended; go on with --resume",
        ) from error
