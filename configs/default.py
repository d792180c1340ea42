from cyclegan_jax.config import Config, to_config_dict


def get_config():
  return to_config_dict(Config())
