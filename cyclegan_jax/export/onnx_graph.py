"""Layers as ONNX nodes, on [B, C, H, W].

All operators belong to opset 17 and run on every provider of onnxruntime and
onnxruntime-web.
"""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cyclegan_jax.types import Params

OPSET = 17
IR_VERSION = 8  # of this opset; older runtimes refuse newer ones


class Graph:
  """Nodes and constants in the order in which they are added.

  Values are referred to by name: methods take names and return one.
  """

  def __init__(self, dtype: str, epsilon: float):
    """Makes an empty graph.

    Args:
      dtype: 'float32' or 'float16', of weights and activations; norms, inputs
        and outputs stay float32.
      epsilon: of the norms.
    """
    self.dtype = np.dtype(dtype)
    self._epsilon = epsilon
    self._nodes: list[Any] = []
    self._constants: list[Any] = []

  def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
    """Adds an operator."""
    name = f'{kind.lower()}_{len(self._nodes)}'
    self._nodes.append(
      helper.make_node(kind, list(inputs), [name], name=name, **attributes)
    )
    return name

  def constant(self, array: np.ndarray) -> str:
    """Adds an array, in its own type."""
    name = f'constant_{len(self._constants)}'
    self._constants.append(numpy_helper.from_array(array, name))
    return name

  def weights(self, array: Any) -> str:
    """Adds an array, in the graph's type."""
    return self.constant(np.ascontiguousarray(np.asarray(array, self.dtype)))

  def cast(self, x: str, dtype: Any) -> str:
    """Adds a change of type."""
    to = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return self.node('Cast', x, to=to)

  def conv(
    self,
    x: str,
    params: Params,
    *,
    size: int,
    stride: int = 1,
    padding: str = 'zero',
  ) -> str:
    """`nets.layers.Conv` with pads of (size - 1) // 2."""
    border = (size - 1) // 2
    pads = [border] * 4
    if padding == 'reflect' and border:
      ends = self.constant(np.array([0, 0, border, border] * 2, np.int64))
      x = self.node('Pad', x, ends, mode='reflect')
      pads = [0] * 4
    return self.node(
      'Conv',
      x,
      self.weights(np.asarray(params['kernel']).transpose(3, 2, 0, 1)),
      *self._bias(params),
      kernel_shape=[size] * 2,
      strides=[stride] * 2,
      pads=pads,
    )

  def upsample(
    self, x: str, params: Params, *, size: int, method: str, padding: str
  ) -> str:
    """`nets.layers.Upsample`."""
    if method == 'transpose':
      # [h, w, O, I], the kernel of the convolution whose adjoint it is.
      kernel = np.asarray(params['ConvTranspose_0']['kernel'])
      return self.node(
        'ConvTranspose',
        x,
        self.weights(kernel.transpose(3, 2, 0, 1)),
        *self._bias(params['ConvTranspose_0']),
        kernel_shape=[size] * 2,
        strides=[2, 2],
        pads=[1] * 4,
        output_padding=[size % 2] * 2,
      )
    scales = self.constant(np.array([1, 1, 2, 2], np.float32))
    x = self.node(
      'Resize',
      x,
      '',
      scales,
      mode='nearest',
      coordinate_transformation_mode='asymmetric',
      nearest_mode='floor',
    )
    return self.conv(x, params['Conv_0'], size=3, padding=padding)

  def _bias(self, params: Params) -> list[str]:
    return [self.weights(params['bias'])] if 'bias' in params else []

  def norm(self, x: str, params: Params, *, channels: int) -> str:
    """`nets.layers.Norm` over each image by itself, as in translators."""
    scale = params.get('scale', np.ones(channels))
    bias = params.get('bias', np.zeros(channels))
    y = self.node(
      'InstanceNormalization',
      self._to_float32(x),
      self.constant(np.asarray(scale, np.float32)),
      self.constant(np.asarray(bias, np.float32)),
      epsilon=self._epsilon,
    )
    return self._to_own_dtype(y)

  def layer_norm(self, x: str, params: Params) -> str:
    """`nets.layers.Norm` of kind 'layer', on [B, N, C]."""
    y = self.node(
      'LayerNormalization',
      self._to_float32(x),
      self.constant(np.asarray(params['scale'], np.float32)),
      self.constant(np.asarray(params['bias'], np.float32)),
      axis=-1,
      epsilon=1e-5,
    )
    return self._to_own_dtype(y)

  def softmax(self, x: str, factor: float) -> str:
    """Softmax of x times a factor, over the last axis."""
    scale = self.constant(np.array(factor, np.float32))
    y = self.node('Mul', self._to_float32(x), scale)
    return self._to_own_dtype(self.node('Softmax', y, axis=-1))

  def _to_float32(self, x: str) -> str:
    # Sums over an image lose too much in 16 bits.
    return x if self.dtype == np.float32 else self.cast(x, np.float32)

  def _to_own_dtype(self, x: str) -> str:
    return x if self.dtype == np.float32 else self.cast(x, self.dtype)

  def dense(self, x: str, params: Params) -> str:
    """`nn.Dense`, on [..., C]."""
    y = self.node('MatMul', x, self.weights(params['kernel']))
    return self.node('Add', y, *self._bias(params))

  def gelu(self, x: str) -> str:
    """The exact one: x / 2 * (1 + erf(x / sqrt(2)))."""
    root, one, half = map(self.weights, (np.sqrt(2), 1.0, 0.5))
    y = self.node('Add', self.node('Erf', self.node('Div', x, root)), one)
    return self.node('Mul', self.node('Mul', x, half), y)

  def reshape(self, x: str, shape: list[int]) -> str:
    """Reshape, where 0 keeps a size and -1 is inferred."""
    return self.node('Reshape', x, self.constant(np.array(shape, np.int64)))

  def transpose(self, x: str, axes: list[int]) -> str:
    """Reorders the axes."""
    return self.node('Transpose', x, perm=axes)

  def dropout(self, x: str, mask: np.ndarray | None) -> str:
    """Multiplies by a mask [H, W, C], if there is one."""
    if mask is None:
      return x
    return self.node('Mul', x, self.weights(mask.transpose(2, 0, 1)[None]))

  def finish(
    self,
    output: str,
    *,
    channels_in: int,
    channels_out: int,
    side: int | None,
    metadata: dict[str, str],
  ) -> onnx.ModelProto:
    """Returns the checked model of the graph.

    Args:
      output: name of the last value; the first is 'input'.
      channels_in: channels of the input images.
      channels_out: channels of the output images.
      side: height and width, or None for any.
      metadata: for metadata_props.
    """
    size = (side, side) if side else ('height', 'width')

    def value(name: str, channels: int) -> Any:
      shape = ['batch', channels, *size]
      return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    self._nodes.append(helper.make_node('Identity', [output], ['output']))
    graph = helper.make_graph(
      self._nodes,
      'generator',
      [value('input', channels_in)],
      [value('output', channels_out)],
      self._constants,
    )
    model = helper.make_model(
      graph,
      opset_imports=[helper.make_opsetid('', OPSET)],
      ir_version=IR_VERSION,
      producer_name='cyclegan_jax',
    )
    helper.set_model_props(model, metadata)
    onnx.checker.check_model(model, full_check=True)
    return model
