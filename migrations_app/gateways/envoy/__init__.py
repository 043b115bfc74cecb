"""The Envoy adapter: a real proxy that takes its routing from files it watches, without a restart."""

from migrations_app.gateways.envoy.adapter import EnvoyGateway
from migrations_app.gateways.envoy.bootstrap import BootstrapOptions
from migrations_app.gateways.envoy.start import envoy_command, find_binary, prepare_folder

__all__ = ["BootstrapOptions", "EnvoyGateway", "envoy_command", "find_binary", "prepare_folder"]
