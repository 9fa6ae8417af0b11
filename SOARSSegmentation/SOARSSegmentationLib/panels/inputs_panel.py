"""The first section: which CT, which model, which device, which organs; Apply; and the progress of the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer

from soars.bundle.store import BundleEntry, list_bundles
from soars.catalogue import SOARS42
from SOARSSegmentationLib.panels.bundle_card import BundleCard, card_dialog
from SOARSSegmentationLib.panels.organs_dialog import OrgansDialog
from SOARSSegmentationLib.panels.parts import (
    Notice,
    narrow_combo_box,
    node_selector,
    section,
    small_label,
    text_label,
)
from SOARSSegmentationLib.panels.progress_view import ProgressView
from SOARSSegmentationLib.protocols import Protocols
from SOARSSegmentationLib.run.dependencies import Gpu, device_sentence
from SOARSSegmentationLib.run.models import State
from SOARSSegmentationLib.translation import _


class InputsPanel:
    """Widgets only: ``on_put(name, value)`` is called for every choice of the user with the name of its parameter,
    ``on_apply()`` for the button, which is also Cancel, and ``on_link(link)`` for a click on "get" or "scratch" in the
    model's description."""

    def __init__(
        self,
        protocols: Protocols,
        on_put: Callable[[str, Any], None],
        on_apply: Callable[[], None],
        on_link: Callable[[str], None],
    ) -> None:
        self._protocols = protocols
        self._on_put = on_put
        self._showing = False
        self._entries: list[BundleEntry] = []
        self._gpu: Gpu | None = None
        self._on_link = on_link
        self._state: State | None = None
        self.widget, layout = section(_("Propose contours"))
        form = qt.QFormLayout()
        layout.addLayout(form)
        form.setFieldGrowthPolicy(qt.QFormLayout.AllNonFixedFieldsGrow)

        self.volume = node_selector(
            "vtkMRMLScalarVolumeNode",
            _("Choose a head-and-neck planning CT"),
            _("The CT to contour. Load one with DICOM or Add Data, or take the phantom of Sample Data."),
        )
        form.addRow(_("CT:"), self.volume)

        self.bundle = narrow_combo_box()
        self.bundle.toolTip = _("The trained model that proposes the contours")
        form.addRow(_("Model:"), self.bundle)
        self.card = BundleCard(self._follow)
        form.addRow(self.card.widget)

        self.mr_label = text_label(_("MR:"))
        self.mr = node_selector(
            "vtkMRMLScalarVolumeNode",
            _("None: contour on the CT alone"),
            _(
                "A T1-weighted MR of the same patient, in any position: it is laid onto the CT before contouring"
            ),
        )
        form.addRow(self.mr_label, self.mr)

        self.organs = narrow_combo_box()
        self.organs.toolTip = _("Which organs are proposed and reviewed")
        self.edit_organs = qt.QToolButton()
        self.edit_organs.text = _("Edit...")
        self.edit_organs.toolTip = _("Choose organs one by one, and save the choice under a name")
        self.remove_organs = qt.QToolButton()
        self.remove_organs.text = _("Remove")
        self.remove_organs.toolTip = _("Forget this saved choice of organs")
        row = qt.QHBoxLayout()
        row.addWidget(self.organs, 1)
        row.addWidget(self.edit_organs)
        row.addWidget(self.remove_organs)
        form.addRow(_("Organs:"), row)

        self.device = narrow_combo_box()
        for title, key in ((_("Automatic"), "auto"), (_("Graphics card"), "cuda"), (_("Processor"), "cpu")):
            self.device.addItem(title, key)
        form.addRow(_("Device:"), self.device)
        self.device_label = small_label()
        form.addRow(self.device_label)

        self._choices = (
            *(
                self.volume,
                self.mr,
                self.bundle,
                self.organs,
                self.edit_organs,
                self.remove_organs,
                self.device,
            ),
        )
        self.apply = qt.QPushButton(_("Apply"))
        self.apply.setMinimumHeight(32)
        layout.addWidget(self.apply)
        self.progress = ProgressView()
        self.progress.widget.visible = False
        layout.addWidget(self.progress.widget)
        self.notice = Notice()
        layout.addWidget(self.notice.widget)

        self.volume.currentNodeChanged.connect(self._volume_changed)
        self.mr.currentNodeChanged.connect(self._mr_changed)
        self.bundle.currentIndexChanged.connect(self._bundle_changed)
        self.device.currentIndexChanged.connect(self._device_changed)
        self.organs.currentIndexChanged.connect(self._organs_changed)
        self.edit_organs.clicked.connect(self._edit_organs)
        self.remove_organs.clicked.connect(self._remove_organs)
        self.apply.clicked.connect(lambda *_arguments: on_apply())

    # --- showing -------------------------------------------------------------------------------------------------
    def show(self, parameters: Any, gpu: Gpu | None) -> None:
        """Show what is chosen, after looking up the available bundles and protocols again."""
        self._showing = True
        try:
            self._gpu = gpu
            self._entries = list_bundles()
            self.bundle.clear()
            for entry in self._entries:
                self.bundle.addItem(_title(entry), entry.name)
        finally:
            self._showing = False
        self.show_choices(parameters)

    def show_choices(self, parameters: Any) -> None:
        """Show what is chosen among what is available."""
        self._showing = True
        try:
            self.volume.setCurrentNode(parameters.volume)
            self.mr.setCurrentNode(parameters.mr)
            chosen = max(0, self.bundle.findData(parameters.bundle))
            self.bundle.currentIndex = chosen if self._entries else -1
            self._show_protocols(parameters.protocol)
            self.device.currentIndex = max(0, self.device.findData(parameters.device))
        finally:
            self._showing = False
        self._describe()
        wanted = str(parameters.bundle)
        if self.entry is not None and self.entry.name != wanted:
            self._on_put("bundle", self.entry.name)
            self.notice.say(
                "warning",
                _("The model {wanted} is not installed here: {chosen} was chosen in its place.").format(
                    wanted=wanted, chosen=self.entry.name
                ),
            )

    def show_state(self, state: State | None) -> None:
        """What the chosen bundle lacks on this computer; None where that is not known."""
        self._state = state
        self._describe()

    def show_gpu(self, gpu: Gpu | None) -> None:
        """The search for a graphics card is over."""
        self._gpu = gpu
        self._describe()

    def set_starting(self) -> None:
        """Nothing can be chosen or pressed while packages are installed."""
        for widget in (*self._choices, self.apply):
            widget.enabled = False

    def set_running(self, running: bool) -> None:
        """Apply turns into Cancel, and what is chosen cannot be changed."""
        self.apply.text = _("Cancel") if running else _("Apply")
        for widget in self._choices:
            widget.enabled = not running
        self.progress.widget.visible = running

    def allow(self, problem: str | None) -> None:
        """Apply can be pressed unless there is a ``problem``, which its tool tip says."""
        self.apply.enabled = problem is None
        self.apply.toolTip = problem or _("Contour the organs on this CT")

    # --- asking --------------------------------------------------------------------------------------------------
    @property
    def entry(self) -> BundleEntry | None:
        """The chosen bundle."""
        index = self.bundle.currentIndex
        return self._entries[index] if 0 <= index < len(self._entries) else None

    @property
    def covered(self) -> tuple[str, ...]:
        """The organs that the chosen bundle covers."""
        return self.entry.bundle.organs if self.entry is not None and self.entry.bundle is not None else ()

    @property
    def takes_mr(self) -> bool:
        """Whether the chosen bundle sees an MR beside the CT."""
        return self.entry is not None and self.entry.bundle is not None and self.entry.bundle.takes_mr

    def _follow(self, link: str) -> None:
        if link == "card":
            self.open_card()
        else:
            self._on_link(link)

    def open_card(self) -> None:
        if self.entry is not None:
            dialog = card_dialog(self.entry, slicer.util.mainWindow())
            dialog.exec_()
            dialog.deleteLater()

    # --- inside --------------------------------------------------------------------------------------------------
    def _describe(self) -> None:
        self.mr.visible = self.mr_label.visible = self.takes_mr
        self.card.show(self.entry, self._state)
        self.device_label.text = device_sentence(str(self.device.currentData), self._gpu)
        self.remove_organs.visible = self._protocols.find(str(self.organs.currentData)).saved

    def _show_protocols(self, key: str) -> None:
        before, self._showing = self._showing, True
        self.organs.clear()
        for protocol in self._protocols.all():
            number = len(protocol.organs) if protocol.organs is not None else None
            self.organs.addItem(
                protocol.title if number is None else f"{protocol.title} ({number})", protocol.key
            )
        self.organs.currentIndex = max(0, self.organs.findData(key))
        self._showing = before

    def _put(self, name: str, value: Any) -> None:
        if not self._showing:
            self._describe()
            self._on_put(name, value)

    def _volume_changed(self, node: Any = None) -> None:
        self._put("volume", self.volume.currentNode())

    def _mr_changed(self, node: Any = None) -> None:
        self._put("mr", self.mr.currentNode())

    def _bundle_changed(self, *_arguments: Any) -> None:
        self._state = None
        self._put("bundle", self.entry.name if self.entry is not None else "")

    def _device_changed(self, *_arguments: Any) -> None:
        self._put("device", str(self.device.currentData))

    def _organs_changed(self, *_arguments: Any) -> None:
        self._put("protocol", str(self.organs.currentData))

    def _edit_organs(self, *_arguments: Any) -> None:
        start = self._protocols.find(str(self.organs.currentData))
        protocol = OrgansDialog(self._protocols, start, self.covered, slicer.util.mainWindow()).open()
        if protocol is not None:
            self._show_protocols(protocol.key)
            self._put("protocol", protocol.key)

    def _remove_organs(self, *_arguments: Any) -> None:
        self._protocols.remove(str(self.organs.currentData))
        self._show_protocols("")
        self._put("protocol", str(self.organs.currentData))


def _title(entry: BundleEntry) -> str:
    """A bundle in the selector: its name, and how many of the 42 organs it covers."""
    if entry.bundle is None:
        return _("{name} (damaged)").format(name=entry.name)
    covered = sum(organ in SOARS42 for organ in entry.bundle.organs)
    return _("{name} ({covered} of {number})").format(name=entry.name, covered=covered, number=len(SOARS42))
