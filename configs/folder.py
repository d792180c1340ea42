"""Your own two folders: the paper's recipe at half its width and 128 px.

  python main.py --config=configs/folder.py --config.data.path=FOLDER

FOLDER holds trainA and trainB, and testA and testB if you have them; name
folders elsewhere by --config.data.train_a=... and so on. What it costs and
what it gave on real images stands in experiments/README.md.
"""

from configs import default


def get_config():
  config = default.get_config()
  config.batch_size = 1
  config.epochs = 40
  config.pool_size = 50
  config.data.update(name='folder', size=128)
  config.generator.update(name='resnet', filters=32, blocks=6, dropout=0.0)
  config.generator.update(norm='instance', affine=False, padding='reflect')
  config.generator.update(init='normal')
  config.discriminator.update(name='patchgan', filters=32, init='normal')
  config.discriminator.update(norm='instance', affine=False)
  config.loss.update(adversarial='lsgan', discriminator=0.5)
  config.loss.update(identity_a=5.0, identity_b=5.0)
  config.optimizer.learning_rate = 2e-4
  config.schedule.name = 'linear'
  return config
