"""ONNX: for onnxruntime, browsers, and what else reads it."""

import pathlib
from typing import Any

import numpy as np
import onnx
import onnxruntime

from cyclegan_jax.export.model import Model
from cyclegan_jax.export.onnx_graph import Graph
from cyclegan_jax.export.onnx_nets import build
from cyclegan_jax.nets.layers import norm_epsilon


def write(path: pathlib.Path, model: Model) -> Any:
  """Writes a file that takes 'input' and gives 'output', [B, C, H, W] float32.

  Returns:
    What runs it in onnxruntime on a CPU: [B, H, W, C] to [B, H, W, C'].
  """
  graph = Graph(model.dtype, norm_epsilon(model.config.generator))
  is_wide = model.dtype == 'float32'
  x = 'input' if is_wide else graph.cast('input', model.dtype)
  y = build(graph, x, model)
  whole = graph.model(
    y if is_wide else graph.cast(y, np.float32),
    channels_in=model.channels_in,
    channels_out=model.channels_out,
    side=model.side,
    metadata=model.metadata('NCHW') | {'dtype': model.dtype},
  )
  onnx.save_model(whole, path)
  session = onnxruntime.InferenceSession(
    path, providers=['CPUExecutionProvider']
  )

  def run(images: np.ndarray) -> np.ndarray:
    (output,) = session.run(None, {'input': images.transpose(0, 3, 1, 2)})
    return np.asarray(output).transpose(0, 2, 3, 1)

  return run
