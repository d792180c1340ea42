"""ONNX files, for onnxruntime and browsers."""

import pathlib

import numpy as np
import onnx
import onnxruntime

from cyclegan_jax.export.formats import RunFile
from cyclegan_jax.export.model import Model
from cyclegan_jax.export.onnx_graph import Graph
from cyclegan_jax.export.onnx_nets import add_generator
from cyclegan_jax.nets.layers import norm_epsilon


def write(path: pathlib.Path, model: Model) -> RunFile:
  """Writes a file with 'input' and 'output', [B, C, H, W] float32.

  Returns:
    Runs the file in onnxruntime on a CPU: [B, H, W, C] to [B, H, W, C'].
  """
  graph = Graph(model.dtype, norm_epsilon(model.config.generator))
  is_half = model.dtype == 'float16'
  x = graph.cast('input', model.dtype) if is_half else 'input'
  y = add_generator(graph, x, model)
  program = graph.finish(
    graph.cast(y, np.float32) if is_half else y,
    channels_in=model.channels_in,
    channels_out=model.channels_out,
    side=model.side,
    metadata=model.metadata('NCHW') | {'dtype': model.dtype},
  )
  onnx.save_model(program, path)
  session = onnxruntime.InferenceSession(
    path, providers=['CPUExecutionProvider']
  )

  def run(images: np.ndarray) -> np.ndarray:
    (output,) = session.run(None, {'input': images.transpose(0, 3, 1, 2)})
    return np.asarray(output).transpose(0, 2, 3, 1)

  return run
