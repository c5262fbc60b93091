"""Put a set of configuration files in place on a host as a whole, and have a service work with them."""

from __future__ import annotations

from slipway.controller.configuration import ConfigurationAction
from slipway.host.configure.step import PARAMETERS

DOCUMENTATION = r"""
action: configuration
short_description: Put a set of configuration files in place as a whole, and have a service work with them
description:
  - If the test fails with the new files, all of them are put back and what runs is not touched.
  - Whether a reload took effect is seen by the service's workers, since the reload itself reports success either way. If they
    are older than the files, because an earlier run was interrupted or a reload failed, the service is reloaded again.
options:
  files:
    type: list
    elements: dict
    required: true
    description:
      - Each has C(path), and one of C(content), C(template) (of the role), C(copy) (a file of the role) and C(edit). Directories
        are created. What begins with C(#!) can be executed.
      - C(edit) is for a file that is somebody else's, and maps patterns for its lines to what each such line is replaced with,
        C(\1) being what the pattern has in its first group.
      - C(group) is for a file that holds a secret. Nobody else may read it, and what it holds is not shown.
  absent: {type: list, elements: path, default: [], description: "Files that must not exist."}
  directories: {type: list, elements: path, default: [], description: "Directories that must exist."}
  reads: {type: list, elements: path, default: [], description: "Files of others that the service reads on a reload."}
  test: {type: list, elements: str, default: [], description: "Command that fails if the files are wrong."}
  apply: {type: list, elements: str, default: [], description: "Command to run if the files changed."}
  service: {type: str, description: "Service that must run, now and at boot."}
  more_services: {type: list, elements: str, default: [], description: "Further services that must run, now and at boot."}
  workers: {type: str, description: "Title of the service's processes that a reload replaces. Without it nothing is reloaded."}
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
