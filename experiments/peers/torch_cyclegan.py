"""CycleGAN's training step in plain PyTorch, to compare ours with.

The networks, losses, pools and the order of work are the authors': fakes and
cycles, identities, one step of both generators, then a backward for each
discriminator and one step of both. `Options()` is how it is written most
often: float32, eager. `TUNED` is the best that PyTorch gives without changing
what is computed; its parts can be turned on one by one.
"""

import dataclasses
import random

import torch
from torch import nn

from cyclegan_jax.config import Config
from experiments.peers.torch_networks import NETS, load_flax

F = nn.functional


@dataclasses.dataclass(frozen=True)
class Options:
  """How it is computed.

  Attributes:
    channels_last: memory format of images and weights. Instance norm is then
      a group norm of one channel a group, which is the same and keeps the
      format; `nn.InstanceNorm2d` leaves it, and with PyTorch 2.13 on a CPU its
      gradient is wrong where one image's gradient comes in it.
    bfloat16: networks under autocast; weights and losses stay float32.
    compile: '' for eager, else a mode of torch.compile: 'default', or
      'reduce-overhead', which records CUDA graphs.
    fused_adam: one kernel for all parameters.
    paired: one call of a network for two sets of images, where its norm takes
      each image by itself.
  """

  channels_last: bool = False
  bfloat16: bool = False
  compile: str = ''
  fused_adam: bool = False
  paired: bool = False


TUNED = {
  'cpu': Options(compile='default', fused_adam=True, paired=True),
  'cuda': Options(
    channels_last=True,
    bfloat16=True,
    compile='reduce-overhead',
    fused_adam=True,
    paired=True,
  ),
}


def keep_channels_last(net: nn.Module) -> None:
  """Puts group norms where a network has instance norms."""
  for name, layer in net.layers.items():
    if isinstance(layer, nn.InstanceNorm2d):
      channels = layer.num_features
      net.layers[name] = nn.GroupNorm(
        channels, channels, layer.eps, layer.affine
      )


class Pool:
  """The last 50 fakes, of which half are exchanged (arXiv:1612.07828)."""

  def __init__(self, size: int):
    self._size = size
    self._images: list[torch.Tensor] = []

  def query(self, images: torch.Tensor) -> torch.Tensor:
    """[B, C, H, W] fakes in, as many out."""
    if not self._size:
      return images
    found = []
    for image in images:
      if len(self._images) < self._size:
        self._images.append(image.clone())
      elif random.random() < 0.5:
        place = random.randrange(self._size)
        image, self._images[place] = self._images[place], image.clone()
      found.append(image)
    return torch.stack(found)


class CycleGAN:
  """Both generators and both discriminators, with their optimizers."""

  def __init__(
    self,
    config: Config,
    options: Options = Options(),
    *,
    device: str = 'cpu',
    state=None,
  ):
    """Makes the networks.

    Args:
      config: ours; of adversarial losses 'vanilla' and 'lsgan', of optimizers
        Adam at a constant rate.
      options: how it is computed.
      device: 'cpu' or 'cuda'.
      state: a TrainState of ours, whose weights are taken; None for PyTorch's
        own initialisation.
    """
    if config.loss.adversarial not in ('vanilla', 'lsgan'):
      raise ValueError(f'no adversarial loss {config.loss.adversarial!r} here')
    self.config, self.options, self.device = config, options, device
    gen, disc = config.generator, config.discriminator
    self.gen = nn.ModuleDict(
      {
        direction: NETS[gen.name](
          gen, config.channels(direction[0]), config.channels(direction[1])
        )
        for direction in ('ab', 'ba')
      }
    )
    self.disc = nn.ModuleDict(
      {
        domain: NETS[disc.name](disc, config.channels(domain))
        for domain in 'ab'
      }
    )
    for side in ('gen', 'disc'):
      for name, net in getattr(self, side).items():
        net.drops = side == 'gen' and gen.dropout > 0
        if options.channels_last:
          keep_channels_last(net)
        if state is not None:
          load_flax(net, getattr(state, side)[name])
      nets = getattr(self, side).to(device)
      if options.channels_last:
        nets.to(memory_format=torch.channels_last)
    if device == 'cuda':
      torch.backends.cudnn.benchmark = True  # as the authors; XLA tunes too
    adam = config.optimizer
    self.gen_opt, self.disc_opt = (
      torch.optim.Adam(
        nets.parameters(),
        lr=adam.learning_rate * ratio,
        betas=(adam.b1, adam.b2),
        eps=adam.eps,
        fused=options.fused_adam or None,
      )
      for nets, ratio in (
        (self.gen, 1),
        (self.disc, adam.disc_learning_rate_ratio),
      )
    )
    self.pools = {domain: Pool(config.pool_size) for domain in 'ab'}
    self._gen_losses, self._disc_losses = (
      torch.compile(each, mode=options.compile) if options.compile else each
      for each in (self._generator_losses, self._discriminator_loss)
    )
    self._can_pair = {
      side: options.paired and getattr(config, side).norm != 'batch'
      for side in ('generator', 'discriminator')
    }

  def step(self, a: torch.Tensor, b: torch.Tensor) -> dict[str, torch.Tensor]:
    """One update of all networks.

    Args:
      a: float32 [B, C, H, W] in [-1, 1].
      b: likewise, of the other domain.

    Returns:
      Losses by the names of ours, as tensors on the device.
    """
    if self.options.compile == 'reduce-overhead':
      # What a recorded graph gave lives until a step begins, not until the
      # next graph runs: a's losses are read after b's were computed.
      torch.compiler.cudagraph_mark_step_begin()
    if self.options.channels_last:
      a, b = (
        each.contiguous(memory_format=torch.channels_last) for each in (a, b)
      )
    self.disc.requires_grad_(False)
    self.gen_opt.zero_grad(set_to_none=True)
    with self._autocast():
      losses, fakes = self._gen_losses(a, b)
    losses['generator/loss'].backward()
    self.gen_opt.step()

    self.disc.requires_grad_(True)
    self.disc_opt.zero_grad(set_to_none=True)
    for domain, real in (('a', a), ('b', b)):
      fake = self.pools[domain].query(fakes[domain].detach())
      with self._autocast():
        loss = self._disc_losses(self.disc[domain], real, fake)
      (self.config.loss.discriminator * loss).backward()
      losses[f'discriminator/{domain}'] = loss
    self.disc_opt.step()
    # Copies, as the next step computes into the same memory.
    return {name: each.detach().clone() for name, each in losses.items()}

  def _autocast(self):
    return torch.autocast(
      self.device, torch.bfloat16, enabled=self.options.bfloat16
    )

  def _generator_losses(self, a, b):
    weights, paired = self.config.loss, self._can_pair['generator']
    same_a = same_b = None
    if self.config.uses_identity and paired:
      fake_b, same_b = self.gen['ab'](torch.cat([a, b])).chunk(2)
      fake_a, same_a = self.gen['ba'](torch.cat([b, a])).chunk(2)
    else:
      fake_b, fake_a = self.gen['ab'](a), self.gen['ba'](b)
    cycled_a, cycled_b = self.gen['ba'](fake_b), self.gen['ab'](fake_a)
    if self.config.uses_identity and not paired:
      same_a, same_b = self.gen['ba'](a), self.gen['ab'](b)
    losses = {
      'generator/adversarial_ab': self._adversarial(self.disc['b'](fake_b), 1),
      'generator/adversarial_ba': self._adversarial(self.disc['a'](fake_a), 1),
      'generator/cycle_a': F.l1_loss(cycled_a.to(a.dtype), a),
      'generator/cycle_b': F.l1_loss(cycled_b.to(b.dtype), b),
    }
    loss = (
      losses['generator/adversarial_ab']
      + losses['generator/adversarial_ba']
      + weights.cycle_a * losses['generator/cycle_a']
      + weights.cycle_b * losses['generator/cycle_b']
    )
    if same_a is not None:
      losses['generator/identity_a'] = F.l1_loss(same_a.to(a.dtype), a)
      losses['generator/identity_b'] = F.l1_loss(same_b.to(b.dtype), b)
      loss = (
        loss
        + weights.identity_a * losses['generator/identity_a']
        + weights.identity_b * losses['generator/identity_b']
      )
    losses['generator/loss'] = loss
    return losses, {'a': fake_a.to(a.dtype), 'b': fake_b.to(b.dtype)}

  def _discriminator_loss(self, disc, real, fake):
    if self._can_pair['discriminator']:
      of_real, of_fake = disc(torch.cat([real, fake])).chunk(2)
    else:
      of_real, of_fake = disc(real), disc(fake)
    return self._adversarial(of_real, 1) + self._adversarial(of_fake, 0)

  def _adversarial(self, logits, target):
    if self.options.bfloat16:
      logits = logits.float()
    targets = torch.full_like(logits, target)
    if self.config.loss.adversarial == 'lsgan':
      return F.mse_loss(logits, targets)
    return F.binary_cross_entropy_with_logits(logits, targets)
