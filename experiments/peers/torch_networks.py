"""The networks in plain PyTorch, as its users would write them.

Layers have the names of ours, so that weights go from one side to the other by
name; how they are joined is written here once more, from the papers and the
authors' code.
"""

import math

import jax.numpy as jnp
import numpy as np
import torch
from torch import nn

F = nn.functional

KERAS_EPSILON = 1.01e-5


class Net(nn.Module):
  """Layers by name; a subclass says how they are joined."""

  def __init__(self, config, channels_in=3, channels=3):
    super().__init__()
    self.config = config
    self.layers = nn.ModuleDict()
    self.masks = {}  # of dropout, by its name: for comparisons
    self.drops = False
    self.build(channels_in, channels)

  def conv(self, name, i, o, size, stride=1, pad=0, bias=True, reflect=False):
    mode = 'reflect' if reflect else 'zeros'
    self.layers[name] = nn.Conv2d(
      i, o, size, stride, pad, bias=bias, padding_mode=mode
    )

  def up(self, name, i, o, size, extra=0, bias=True):
    self.layers[name] = nn.ConvTranspose2d(
      i, o, size, 2, 1, output_padding=extra, bias=bias
    )

  def norm(self, name, channels, epsilon=1e-5):
    kind = {'batch': nn.BatchNorm2d, 'instance': nn.InstanceNorm2d}.get(
      self.config.norm, lambda *args, **kwargs: nn.Identity()
    )
    self.layers[name] = kind(
      channels,
      epsilon,
      affine=self.config.affine,
      track_running_stats=False,
    )

  def drop(self, name, x):
    if name in self.masks:
      return x * self.masks[name] / (1 - self.config.dropout)
    # Always on, as in the Keras note.
    return F.dropout(x, self.config.dropout) if self.drops else x


class ResNet(Net):
  def build(self, channels_in, channels):
    c, f = self.config, self.config.filters
    reflect, bias = c.padding == 'reflect', c.norm != 'batch'
    self.conv('stem', channels_in, f, 7, pad=3, bias=bias, reflect=reflect)
    self.norm('stem_norm', f)
    for i in (1, 2):
      self.conv(f'down_{i}', f * i, 2 * f * i, 3, 2, 1, bias)
      self.norm(f'down_norm_{i}', 2 * f * i)
    for block in range(c.blocks):
      for i in (0, 1):
        name = f'block_{block}_conv_{i}'
        self.conv(name, 4 * f, 4 * f, 3, 1, 1, bias, reflect)
        self.norm(f'block_{block}_norm_{i}', 4 * f)
    for i, of_i in ((1, 2 * f), (0, f)):
      self.up(f'up_{i}', 2 * of_i, of_i, 3, 1, bias)
      self.norm(f'up_norm_{i}', of_i)
    self.conv('head', f, channels, 7, pad=3, reflect=reflect)

  def forward(self, x):
    n = self.layers
    x = F.relu(n['stem_norm'](n['stem'](x)))
    for i in (1, 2):
      x = F.relu(n[f'down_norm_{i}'](n[f'down_{i}'](x)))
    for block in range(self.config.blocks):
      name = f'block_{block}'
      y = F.relu(n[f'{name}_norm_0'](n[f'{name}_conv_0'](x)))
      y = self.drop(f'{name}_dropout', y)
      x = x + n[f'{name}_norm_1'](n[f'{name}_conv_1'](y))
    for i in (1, 0):
      x = F.relu(n[f'up_norm_{i}'](n[f'up_{i}'](x)))
    return torch.tanh(n['head'](x))


class KerasUNet(Net):
  def build(self, channels_in, channels):
    c, size = self.config, self.config.isize
    above, out, inner = channels_in, channels, c.filters
    normed = c.norm != 'none'
    while size >= 2:
      first, last = size == c.isize, size == 2
      self.conv(
        f'conv_{size}', above, inner, 4, 2, 1, first or last or not normed
      )
      if not (first or last):
        self.norm(f'norm_{size}', inner, KERAS_EPSILON)
      below = inner if last else 2 * inner
      self.up(f'convt_{size}', below, out, 4, bias=first or not normed)
      if not first:
        self.norm(f'normt_{size}', out, KERAS_EPSILON)
      above, out, inner = inner, inner, min(2 * inner, 8 * c.filters)
      size //= 2

  def forward(self, x):
    return torch.tanh(self.block(x, self.config.isize))

  def block(self, x, size):
    n, first = self.layers, size == self.config.isize
    x = n[f'conv_{size}'](x)
    if size > 2:
      if not first:
        x = n[f'norm_{size}'](x)
      below = self.block(F.leaky_relu(x, 0.2), size // 2)
      x = torch.cat([x, below], 1)
    x = n[f'convt_{size}'](F.relu(x))
    if not first:
      x = n[f'normt_{size}'](x)
    return self.drop(f'dropout_{size}', x)


class TorchUNet(Net):
  def build(self, channels_in, channels):
    c = self.config
    self.depth = int(math.log2(c.isize))
    bias = c.norm != 'batch'
    above, out, inner = channels_in, channels, c.filters
    for level in range(self.depth):
      first, last = level == 0, level == self.depth - 1
      self.conv(f'down_{level}', above, inner, 4, 2, 1, bias)
      if not (first or last):
        self.norm(f'down_norm_{level}', inner)
      below = inner if last else 2 * inner
      self.up(f'up_{level}', below, out, 4, bias=bias or first)
      if not first:
        self.norm(f'up_norm_{level}', out)
      above, out, inner = inner, inner, min(2 * inner, 8 * c.filters)

  def forward(self, x):
    return torch.tanh(self.block(x, 0))

  def block(self, x, level):
    """Its skip is what it was given after the ReLU, which works in place."""
    n, first, last = self.layers, level == 0, level == self.depth - 1
    if not first:
      x = F.leaky_relu(x, 0.2)
    y = n[f'down_{level}'](x)
    if not last:
      if not first:
        y = n[f'down_norm_{level}'](y)
      y = self.block(y, level + 1)
    y = n[f'up_{level}'](F.relu(y))
    if first:
      return y
    y = self.drop(f'dropout_{level}', n[f'up_norm_{level}'](y))
    return torch.cat([x, y], 1)


class PatchGAN(Net):
  def build(self, channels_in, channels):
    c = self.config
    self.is_keras = c.name == 'keras_patchgan'
    epsilon = KERAS_EPSILON if self.is_keras else 1e-5
    bias = c.norm == 'none' or (c.norm == 'instance' and not self.is_keras)
    i, o = channels_in, c.filters
    for level in range(c.layers + 1):
      first, last = level == 0, level == c.layers
      self.conv(f'conv_{level}', i, o, 4, 1 if last else 2, 0, first or bias)
      if not first:
        self.norm(f'norm_{level}', o, epsilon)
      i, o = o, min(2 * o, 8 * c.filters)
    self.conv('logits', i, 1, 4)

  def forward(self, x):
    n, c = self.layers, self.config
    is_same = self.is_keras and c.last_layers == 'same'
    # Of Keras's 'same' with an even kernel: one before, two after.
    pads = (1, 2, 1, 2) if is_same else (1, 1, 1, 1)
    for level in range(c.layers + 1):
      x = F.pad(x, pads if level == c.layers else (1, 1, 1, 1))
      x = n[f'conv_{level}'](x)
      if level:
        x = n[f'norm_{level}'](x)
      x = F.leaky_relu(x, 0.2)
    return n['logits'](F.pad(x, pads))


class PixelGAN(Net):
  def build(self, channels_in, channels):
    f, bias = self.config.filters, self.config.norm != 'batch'
    self.conv('conv_0', channels_in, f, 1)
    self.conv('conv_1', f, 2 * f, 1, bias=bias)
    self.norm('norm_1', 2 * f)
    self.conv('logits', 2 * f, 1, 1, bias=bias)

  def forward(self, x):
    n = self.layers
    x = n['conv_1'](F.leaky_relu(n['conv_0'](x), 0.2))
    return n['logits'](F.leaky_relu(n['norm_1'](x), 0.2))


NETS = {
  'resnet': ResNet,
  'keras_unet': KerasUNet,
  'torch_unet': TorchUNet,
  'keras_patchgan': PatchGAN,
  'patchgan': PatchGAN,
  'pixelgan': PixelGAN,
}


def to_flax(net, leaf=lambda x: jnp.asarray(x.detach().cpu().numpy())):
  """Our parameters: kernels OIHW to HWIO, and transposed [I, O, h, w] too."""
  params = {}
  for name, layer in net.layers.items():
    if getattr(layer, 'weight', None) is None:
      continue
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
      ours = {'kernel': leaf(layer.weight.permute(2, 3, 1, 0))}
    else:
      ours = {'scale': leaf(layer.weight)}
    if layer.bias is not None:
      ours['bias'] = leaf(layer.bias)
    is_transposed = isinstance(layer, nn.ConvTranspose2d)
    params[name] = {'ConvTranspose_0': ours} if is_transposed else ours
  return params


def load_flax(net, params):
  """Copies our parameters into a network: the way back of `to_flax`."""
  for name, ours in params.items():
    layer = net.layers[name]
    for leaf, value in ours.get('ConvTranspose_0', ours).items():
      value = torch.from_numpy(np.array(value))
      if leaf == 'kernel':
        value = value.permute(3, 2, 0, 1)
      theirs = layer.bias if leaf == 'bias' else layer.weight
      with torch.no_grad():
        theirs.copy_(value)


def to_torch(images, device='cpu'):
  """[B, H, W, C] to [B, C, H, W]."""
  images = torch.from_numpy(np.array(images).transpose(0, 3, 1, 2))
  return images.contiguous().to(device)


def from_torch(images):
  """The way back of `to_torch`."""
  return images.detach().float().cpu().numpy().transpose(0, 2, 3, 1)
