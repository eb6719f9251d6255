// Client on @modelcontextprotocol/client 2.x: pinned to the era of the job, or negotiating where that is the scenario.

import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

import { SCENARIOS } from './scenarios.mjs';
import { Mailbox, run } from './worker.mjs';

class Session {
    asked = [];
    notifications = new Mailbox();
    #client;
    #transport;

    constructor(job, headers) {
        // `auto` probes first: in the modern era and where the fallback is the point.
        const mode = job.era === 'modern' || job.scenario === 'discover-fallback' ? 'auto' : 'legacy';
        this.#client = new Client(
            { name: 'e2e-ts2', version: '1' },
            { capabilities: { sampling: {}, elicitation: { form: {} } }, versionNegotiation: { mode } }
        );
        this.#transport = new StreamableHTTPClientTransport(new URL(job.url), { requestInit: { headers } });
        this.#client.setRequestHandler('sampling/createMessage', request => {
            this.asked.push(request.params);
            return { role: 'assistant', model: 'test-model', content: { type: 'text', text: '42' } };
        });
        this.#client.setRequestHandler('elicitation/create', request => {
            this.asked.push(request.params);
            return request.params.message.includes('really')
                ? { action: 'decline' }
                : { action: 'accept', content: { colour: 'teal' } };
        });
        this.#client.setNotificationHandler('notifications/resources/list_changed', ({ method }) => this.notifications.put(method));
    }

    async open() {
        await this.#client.connect(this.#transport);
        return this;
    }

    close = () => this.#client.close();
    terminate = () => this.#transport.terminateSession();
    sessionId = () => this.#transport.sessionId;
    era = () => `${this.#client.getProtocolEra()} ${this.#client.getNegotiatedProtocolVersion()}`;
    listen = () => this.#client.listen({ resourcesListChanged: true });

    call = (name, args, onprogress, signal) => this.#client.callTool({ name, arguments: args }, { onprogress, signal });
    listTools = async () => (await this.#client.listTools()).tools;
    listResources = async () => (await this.#client.listResources()).resources;
    listTemplates = async () => (await this.#client.listResourceTemplates()).resourceTemplates;
    read = async uri => (await this.#client.readResource({ uri })).contents;
    listPrompts = async () => (await this.#client.listPrompts()).prompts;
    prompt = async (name, args) => (await this.#client.getPrompt({ name, arguments: args })).messages;
}

await run(SCENARIOS, (job, headers) => new Session(job, headers).open());
