// On the audio thread: the microphone's blocks to chunks of 50 ms, 16 kHz, int16.

import { RATE_HZ, Resampler } from "./resample.js";

const CHUNK = RATE_HZ / 20;

class Chunks extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(sampleRate);
    this.chunk = new Int16Array(CHUNK);
    this.filled = 0;
    this.next = null; // frame that the next block begins with, if none is lost
    this.lost = false;
  }

  process(inputs) {
    const channels = inputs[0];
    if (!channels.length) return true;
    if (this.next !== null && currentFrame !== this.next) this.lost = true;
    this.next = currentFrame + channels[0].length;
    const mono = new Float32Array(channels[0].length);
    for (const channel of channels) for (let i = 0; i < mono.length; i++) mono[i] += channel[i] / channels.length;
    for (const sample of this.resampler.push(mono)) {
      this.chunk[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(sample * 32768)));
      if (this.filled === CHUNK) {
        const samples = this.chunk;
        const end = (currentFrame + mono.length) / sampleRate;
        this.port.postMessage({ samples, end, lost: this.lost }, [samples.buffer]);
        this.chunk = new Int16Array(CHUNK);
        this.filled = 0;
        this.lost = false;
      }
    }
    return true;
  }
}

registerProcessor("chunks", Chunks);
