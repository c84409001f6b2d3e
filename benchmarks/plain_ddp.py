"""What a user would write without ddhpc: one CNN for the whole image, torch DistributedDataParallel on two processes.

    python benchmarks/plain_ddp.py flowers.h5 [--epochs 15] [--shift 4] [--flip]

Uses nothing of ddhpc but reads its packed file with h5py. The network is the ResNet of one block in each of three
stages (He et al., arXiv:1512.03385, section 4.2), the global CNN of ddhpc's recipes; batch normalisation sees the
images of its own process, as is usual. Ends with its accuracies, a line of JSON each.
"""

import argparse
import json
import time

import h5py
import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel


class Block(nn.Module):
    """Two convolutions and a shortcut without parameters."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.stride, self.added = stride, outputs - inputs

    def forward(self, x):
        """[B, inputs, H, W] to [B, outputs, H / stride, W / stride]."""
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        if self.stride > 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))
        return F.relu(y + x)


def resnet8(channels, classes, width):
    """The network: [B, channels, H, W] to [B, classes]."""
    net = nn.Sequential(
        nn.Conv2d(channels, width, 3, 1, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        Block(width, width, 1),
        Block(width, 2 * width, 2),
        Block(2 * width, 4 * width, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, classes),
    )
    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return net


def augmented(images, shift, flip):
    """Images [B, C, H, W], shifted by up to `shift` pixels with the edge repeated, every second one mirrored."""
    if shift:
        padded = F.pad(images, (shift,) * 4, mode="replicate")
        height, width = images.shape[2:]
        rows, columns = torch.randint(0, 2 * shift + 1, (2, len(images), 1))
        rows, columns = rows + torch.arange(height), columns + torch.arange(width)
        images = padded[torch.arange(len(images))[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        images = images.permute(0, 3, 1, 2)
    if flip:
        mirrored = torch.rand(len(images), 1, 1, 1) < 0.5
        images = torch.where(mirrored, images.flip(3), images)
    return images.contiguous(memory_format=torch.channels_last)


def train(rank, size, given):
    """What each process does."""
    torch.set_num_threads(1)
    torch.manual_seed(given.seed)
    started = time.perf_counter()
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{given.port}", rank=rank, world_size=size)
    with h5py.File(given.file) as file:
        data = {split: (file[f"{split}/image"][...], file[f"{split}/label"][...]) for split in ("train", "val", "test")}
        classes = len(file["classes"])
    pixels = data["train"][0]
    mean = pixels.mean((0, 2, 3), dtype=np.float64)
    std = pixels.std((0, 2, 3), dtype=np.float64)
    mean, std = (torch.tensor(values, dtype=torch.float32).view(-1, 1, 1) for values in (mean, std))
    splits = {
        split: (
            ((torch.from_numpy(images).float() - mean) / std).contiguous(memory_format=torch.channels_last),
            torch.from_numpy(labels.astype(np.int64)),
        )
        for split, (images, labels) in data.items()
    }
    images, labels = splits["train"]
    net = resnet8(images.shape[1], classes, given.width).to(memory_format=torch.channels_last)
    model = DistributedDataParallel(net)
    optimizer = torch.optim.SGD(
        net.parameters(), given.learning_rate, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True
    )
    batches = len(labels) // given.batch_size
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, given.learning_rate, total_steps=given.epochs * batches, pct_start=0.25, cycle_momentum=False
    )
    for epoch in range(given.epochs):
        net.train()
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(given.seed * 1000 + epoch))
        for batch in order[: batches * given.batch_size].split(given.batch_size):
            mine = batch[rank::size]
            loss = F.cross_entropy(model(augmented(images[mine], given.shift, given.flip)), labels[mine])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            rate.step()
        if rank == 0:
            print(f"epoch {epoch + 1} of {given.epochs}: {time.perf_counter() - started:.1f} s", flush=True)
    net.eval()
    if rank == 0:
        with torch.inference_mode():
            for split in ("val", "test"):
                images, labels = splits[split]
                right = torch.cat([net(part).argmax(1) for part in images.split(512)]) == labels
                print(json.dumps({split: right.float().mean().item()}), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--batch_size", type=int, default=64, help="of all processes together")
    parser.add_argument("--learning_rate", type=float, default=0.1)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--shift", type=int, default=0)
    parser.add_argument("--flip", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--port", type=int, default=29511)
    given = parser.parse_args()
    torch.multiprocessing.spawn(train, (given.processes, given), nprocs=given.processes)
