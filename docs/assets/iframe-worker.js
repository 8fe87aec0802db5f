// Browsers start no worker for a page that is opened from the disk. Here the search's worker runs in a hidden frame, so that
// the site can be searched without a server.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.queue = []
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.append(this.frame)
      const { contentDocument, contentWindow } = this.frame
      contentWindow.postMessage = data => this.dispatchEvent(new MessageEvent("message", { data }))
      const script = contentDocument.createElement("script")
      script.src = new URL(url, location.href).href
      script.onload = () => {
        const waiting = this.queue
        this.queue = null
        waiting.forEach(data => this.postMessage(data))
      }
      contentDocument.body.append(script)
    }

    postMessage(data) {
      if (this.queue) this.queue.push(data)
      else this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }))
    }

    terminate() {
      this.frame.remove()
    }
  }
}
