"""Simulators with pins of their own, in an environment of their own: how they are installed, started and spoken to.

``installed``, ``install`` and ``client`` run here; ``worker`` and what it imports run there, where nothing of this
package is installed: they need numpy alone besides the simulator, and import each other by relative names.
"""
