"""Put a set of configuration files in place on a host as a whole, and have a service work with them."""

from __future__ import annotations

from slipway.controller.configuration import ConfigurationAction
from slipway.host.configure.step import PARAMETERS

DOCUMENTATION = r"""
action: configuration
short_description: Install a set of configuration files as a whole, and reload the service
description:
  - If the test fails with the new files, the old ones are restored and the running service is not touched.
  - A reload is verified by the age of the service's workers, since the command itself reports success either way. If they are
    older than the files, because a run was interrupted or a reload failed, the service is reloaded again.
options:
  files:
    type: list
    elements: dict
    required: true
    description:
      - Each has C(path), and one of C(content), C(template) (of the role), C(copy) (a file of the role) and C(edit). Directories
        are created. A file that begins with C(#!) is executable.
      - C(edit) changes a file of another package. It maps patterns of lines to replacements, in which C(\1) is the first group.
      - C(group) is the only group that may read a file with a secret. Its content is not shown.
  absent: {type: list, elements: path, default: [], description: "Files that must not exist."}
  directories: {type: list, elements: path, default: [], description: "Directories that must exist."}
  reads: {type: list, elements: path, default: [], description: "Other files that the service reads on a reload."}
  test: {type: list, elements: str, default: [], description: "Command that fails if the files are wrong."}
  apply: {type: list, elements: str, default: [], description: "Command to run if the files changed."}
  service: {type: str, description: "Service to start and to enable at boot."}
  more_services: {type: list, elements: str, default: [], description: "Further services to start and to enable at boot."}
  workers:
    type: str
    description: Pattern of the title of the processes that a reload replaces. Without it nothing is reloaded.
  keeps_workers:
    type: bool
    default: false
    description: Whether processes that only finish their last requests keep that title.
"""

EXAMPLES = r"""
- name: Configure the site
  configuration:
    files:
      - {path: /etc/nginx/conf.d/shop.conf, template: site.conf.j2}
    test: [nginx, -t]
    apply: [systemctl, reload, nginx]
"""

RETURN = r"""
diff: {type: list, returned: success, description: "The files that changed, each before and after."}
"""


class ActionModule(ConfigurationAction):
    """Puts the files in place."""

    _VALID_ARGS = frozenset(PARAMETERS) - {"secrets"}
