"""Model versions as files: what was published, from what, and which one is on duty. No torch, no database."""

from tutelage.registry.catalogue import Registry
from tutelage.registry.run_folder import publish_run
from tutelage.registry.version import ModelVersion, VersionKind

__all__ = ["ModelVersion", "Registry", "VersionKind", "publish_run"]
