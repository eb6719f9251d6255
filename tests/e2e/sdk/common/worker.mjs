// The client process: takes one job a line on stdin, answers with one line on stdout.
// A job is {"scenario", "url", "key", "era"}; the answer is {"seen": ...} with what the SDK's user saw, or {"error": ...}.

import readline from 'node:readline';

const JOB_MS_MAX = 15_000;

// An abandoned call may be rejected when nobody listens any more; it must not end the process.
process.on('unhandledRejection', error => console.error('unhandled:', error));

export async function run(scenarios, connect) {
    for await (const line of readline.createInterface({ input: process.stdin })) {
        const job = JSON.parse(line);
        const peer = new Peer(job, connect);
        let timer;
        const late = new Promise((_, reject) => {
            timer = setTimeout(() => reject(new Error(`not done within ${JOB_MS_MAX} ms`)), JOB_MS_MAX);
        });
        try {
            const seen = await Promise.race([scenarios[job.scenario](peer), late]);
            console.log(JSON.stringify({ seen }));
        } catch (error) {
            console.log(JSON.stringify({ error: error.stack ?? String(error) }));
        } finally {
            clearTimeout(timer);
            await peer.close();
        }
    }
    process.exit(0);
}

/** One job's way to the server. `connect(job, headers)` is the SDK's part. */
class Peer {
    #job;
    #connect;
    #sessions = [];

    constructor(job, connect) {
        this.#job = job;
        this.#connect = connect;
        this.key = job.key;
        this.headers = { 'x-e2e-key': job.key, 'x-e2e-trace': 'one, two' };
    }

    async connect() {
        const session = await this.#connect(this.#job, this.headers);
        this.#sessions.push(session);
        return session;
    }

    async close() {
        for (const session of this.#sessions) await session.close().catch(error => console.error(error));
    }

    async lateRequest(method, sessionId) {
        const accept = method === 'GET' ? 'text/event-stream' : 'application/json, text/event-stream';
        const response = await fetch(this.#job.url, {
            method,
            headers: { ...this.headers, 'mcp-session-id': sessionId, accept, ...(method === 'POST' && { 'content-type': 'application/json' }) },
            body: method === 'POST' ? JSON.stringify({ jsonrpc: '2.0', id: 99, method: 'tools/list' }) : undefined
        });
        await response.text();
        return response.status;
    }
}

/** A queue whose `next()` waits for what is not there yet. */
export class Mailbox {
    #items = [];
    #takers = [];

    put(item) {
        const taker = this.#takers.shift();
        if (taker) taker(item);
        else this.#items.push(item);
    }

    next() {
        return this.#items.length > 0 ? Promise.resolve(this.#items.shift()) : new Promise(resolve => this.#takers.push(resolve));
    }
}
