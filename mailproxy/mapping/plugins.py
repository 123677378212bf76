"""Sources of third parties, found as Twisted plugins.

Knows where plugins are and that they may be bad; must not know what they ask.
"""

from collections.abc import Mapping
from typing import Any

from twisted.plugin import getPlugins
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from mailproxy.errors import ConfigError
from mailproxy.logs import Logger
from mailproxy.mapping.interfaces import IMappingPlugin, IMappingSource

log = Logger()


def makePluginSource(name: str, options: Mapping[str, Any], reactor: Any) -> IMappingSource:
    """Have the plugin of that name make its source.

    :raises ConfigError: when there is none, or its source is not one.
    """
    plugin = _find(name)
    try:
        source = plugin.makeSource(options, reactor)
    except ConfigError:
        raise
    except Exception as error:
        log.failure("the mapping plugin {name} failed", name=name)
        raise ConfigError(
            [f'mapping.source: the plugin "{name}" failed: {type(error).__name__}']
        ) from error
    try:
        verifyObject(IMappingSource, source)
    except Invalid as error:
        raise ConfigError(
            [f'mapping.source: what the plugin "{name}" makes is no mapping source: {error}']
        ) from error
    return IMappingSource(source)


def _find(name: str) -> IMappingPlugin:
    found = {str(plugin.name): plugin for plugin in getPlugins(IMappingPlugin)}
    if name not in found:
        known = ", ".join(sorted(found)) or "none"
        raise ConfigError(
            [f'mapping.source: there is no mapping plugin "{name}"; installed are: {known}']
        )
    return IMappingPlugin(found[name])
