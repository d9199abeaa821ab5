"""Where a message is written: text, and pictures, videos and text files by button, paste or drop."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from nicegui import events, ui

from mlx_manager.errors import InvalidRequest
from mlx_manager.ui.attachments import MOST_BYTES, Attachment, attach
from mlx_manager.ui.elements import box, button, tell, text

_ON_ENTER = "(event) => { if (!event.shiftKey && !event.isComposing) { event.preventDefault(); emit(); } }"


class Composer:
    """`send` gets words and files; `sees` says whether the chosen model takes pictures and videos.

    Files may be dropped on all of `zone`. What was written and not sent is kept by the browser's tab.
    """

    def __init__(
        self,
        *,
        send: Callable[[str, tuple[Attachment, ...]], bool],
        stop: Callable[[], None],
        sees: Callable[[], bool],
        zone: ui.element,
    ) -> None:
        self._send = send
        self._sees = sees
        self._files: list[Attachment] = []
        with box("composer"):
            self._attached = box("row-line")
            self._words = ui.textarea(placeholder="Enter sends, Shift+Enter begins a line")
            self._words.props('outlined autogrow dense aria-label="Message" input-style="max-height: 34vh"')
            self._words.on(
                "keydown.enter",
                self._submit,
                js_handler=_ON_ENTER,
            )
            with box("row-line"):
                uploader = ui.upload(
                    on_upload=self._take,
                    on_rejected=self._refuse,
                    max_file_size=MOST_BYTES,
                    multiple=True,
                    auto_upload=True,
                ).classes("hidden")
                pick = button("", icon="attach_file", look="bare", name="Attach pictures, videos or text files")
                pick.on("click", js_handler=f"() => getElement({uploader.id}).$refs.qRef.pickFiles()")
                self._busy = text("", "soft small")
                self._stop = button("Stop", stop, icon="stop").classes("end")
                self._button = button("Send", self._submit, icon="send", look="main").classes("end")
        script = (
            f"mlxManager.takeFiles('{zone.html_id}', {uploader.id}); mlxManager.restoreDraft('{self._words.html_id}')"
        )
        zone.on("vue:mounted", js_handler=f"() => {{ {script} }}")
        ui.timer(0.5, lambda: ui.run_javascript(script), once=True)
        self._uploader = uploader
        self.show_running(False)

    def show_running(self, is_running: bool) -> None:
        """Whether there is something to stop."""
        self._stop.set_visibility(is_running)
        self._button.set_visibility(not is_running)

    def _submit(self) -> None:
        words = (self._words.value or "").strip()
        if not words and not self._files:
            return
        if any(file.is_image or file.is_video for file in self._files) and not self._sees():
            tell("This model does not see: choose one of the kind vision, or remove what is to be seen.", "negative")
            return
        if self._send(words, tuple(self._files)):
            self._words.set_value("")
            ui.run_javascript("mlxManager.dropDraft()")
            self._files.clear()
            self._draw_attached()

    async def _take(self, event: events.UploadEventArguments) -> None:
        file = event.file
        self._uploader.reset()
        try:
            self._files.append(attach(file.name, file.content_type, await file.read()))
        except InvalidRequest as error:
            tell(error.message, "negative")
        self._draw_attached()

    def _refuse(self) -> None:
        tell(f"This file is too large: none may have more than {MOST_BYTES // 1024**2} MiB.", "negative")

    def _draw_attached(self) -> None:
        self._attached.clear()
        with self._attached:
            for file in self._files:
                icon = "image" if file.is_image else "movie" if file.is_video else "description"
                self._chip(file.name, icon, partial(self._files.remove, file))

    def _chip(self, name: str, icon: str, remove: Callable[[], object]) -> None:
        def drop() -> None:
            remove()
            self._draw_attached()

        with box("badge"):
            ui.icon(icon)
            text(name)
            button("", drop, icon="close", look="bare tiny", name=f"Remove {name}")
