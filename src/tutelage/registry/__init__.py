"""Model versions as files: what was published, from what, and which one is on duty. No torch, no database."""

from tutelage.registry.aliases import LATEST
from tutelage.registry.catalogue import Registry
from tutelage.registry.run_folder import publish_run
from tutelage.registry.version import KIND_NAMES, ModelVersion, VersionKind

__all__ = ["KIND_NAMES", "LATEST", "ModelVersion", "Registry", "VersionKind", "publish_run"]
