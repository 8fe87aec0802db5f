"""One of two ranks of a training: prints what DistributedDataParallel would make of losses and gradients."""

import json
import sys

import torch
import torch.distributed as dist


def batch(count=8, seed=0):
    draw = torch.Generator().manual_seed(seed)
    outputs = {
        task: torch.randn(count, width, generator=draw, requires_grad=True)
        for task, width in (("va", 2), ("expr", 7), ("au", 12))
    }
    samples = [
        dict(
            gt_va=2 * torch.rand(2, generator=draw) - 1,
            gt_expr=torch.randint(7, (), generator=draw),
            gt_au=(torch.rand(12, generator=draw) > 0.5).float(),
            teacher_va=2 * torch.rand(2, generator=draw) - 1,
            teacher_expr=torch.rand(7, generator=draw).softmax(dim=0),
            teacher_au=torch.rand(12, generator=draw),
        )
        for _ in range(count)
    ]
    return outputs, samples


def main(address, rank):
    from ffplug_fpnmaa.losses import CCCLoss, DistillLoss, MaskedCE

    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    outputs, samples = batch()
    for sample in samples[5:]:
        del sample["gt_expr"]  # 4 labels on the first rank, 1 on the second
    scale = torch.ones((), requires_grad=True)
    mine = slice(4 * rank, 4 * rank + 4)
    part = {key: (value * scale)[mine] for key, value in outputs.items()}
    values, gradients = {}, {}
    for loss in (MaskedCE(), CCCLoss(), DistillLoss()):
        for name, value in loss(part, samples[mine]).items():
            gradient = torch.autograd.grad(value, scale, retain_graph=True)[0]
            for store, tensor in ((values, value.detach()), (gradients, gradient)):
                tensor = tensor.clone()
                dist.all_reduce(tensor)
                store[name] = float(tensor) / 2
    if rank == 0:
        print(json.dumps([values, gradients]))  # noqa: T201
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
