"""Recipe of the tests: eight steps of tiny networks in seconds.

python main.py --config=configs/tiny.py
"""

from configs import default


def get_config():
  config = default.get_config()
  config.batch_size = 2
  config.steps = 8
  config.pool_size = 3
  config.ema_decay = 0.9
  config.num_devices = 1
  config.data.update(num_train=5, num_test=3, size=16, load_size=20)
  config.generator.update(filters=2, isize=16)
  config.discriminator.update(filters=2, layers=1)
  config.log.update(metrics_every_steps=2, num_samples=2)
  config.log.samples_every_steps = 4
  config.checkpoint.every_steps = 4
  return config
