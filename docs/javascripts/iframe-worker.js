// Pages that are opened as files may not start workers, and the search runs in one: there, its
// script runs in a hidden frame, to which messages go as they would to a worker.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.appendChild(frame)
      const inside = frame.contentWindow
      window.addEventListener("message", event => {
        if (event.source !== inside) return
        const message = new MessageEvent("message", { data: event.data })
        this.dispatchEvent(message)
        if (this.onmessage) this.onmessage(message)
      })
      inside.document.open()
      inside.document.write(`<!doctype html><script>
        window.postMessage = message => parent.postMessage(message, "*")
        window.importScripts = (...urls) => urls.reduce((before, url) => before.then(() =>
          new Promise((done, failed) => {
            const script = document.createElement("script")
            script.src = url
            script.onload = done
            script.onerror = failed
            document.head.appendChild(script)
          })), Promise.resolve())
      </script><script src="${url}"></script>`)
      inside.document.close()
      this.frame = frame
      this.ready = new Promise(done => { frame.onload = done })
    }

    postMessage(data) {
      this.ready.then(() =>
        this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })))
    }

    terminate() { this.frame.remove() }
  }
}
