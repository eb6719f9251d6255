// Client on @modelcontextprotocol/sdk 1.x, which speaks the legacy era only.

import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import {
    CreateMessageRequestSchema,
    ElicitRequestSchema,
    ResourceListChangedNotificationSchema
} from '@modelcontextprotocol/sdk/types.js';

import { SCENARIOS } from './scenarios.mjs';
import { Mailbox, run } from './worker.mjs';

class Session {
    asked = [];
    notifications = new Mailbox();
    #client = new Client({ name: 'e2e-ts1', version: '1' }, { capabilities: { sampling: {}, elicitation: { form: {} } } });
    #transport;

    constructor(job, headers) {
        this.#transport = new StreamableHTTPClientTransport(new URL(job.url), { requestInit: { headers } });
        this.#client.setRequestHandler(CreateMessageRequestSchema, request => {
            this.asked.push(request.params);
            return { role: 'assistant', model: 'test-model', content: { type: 'text', text: '42' } };
        });
        this.#client.setRequestHandler(ElicitRequestSchema, request => {
            this.asked.push(request.params);
            return request.params.message.includes('really')
                ? { action: 'decline' }
                : { action: 'accept', content: { colour: 'teal' } };
        });
        this.#client.setNotificationHandler(ResourceListChangedNotificationSchema, ({ method }) => this.notifications.put(method));
    }

    async open() {
        await this.#client.connect(this.#transport);
        return this;
    }

    close = () => this.#client.close();
    terminate = () => this.#transport.terminateSession();
    sessionId = () => this.#transport.sessionId;
    era = () => `legacy ${this.#transport.protocolVersion}`;

    call = (name, args, onprogress, signal) => this.#client.callTool({ name, arguments: args }, undefined, { onprogress, signal });
    listTools = async () => (await this.#client.listTools()).tools;
    listResources = async () => (await this.#client.listResources()).resources;
    listTemplates = async () => (await this.#client.listResourceTemplates()).resourceTemplates;
    read = async uri => (await this.#client.readResource({ uri })).contents;
    listPrompts = async () => (await this.#client.listPrompts()).prompts;
    prompt = async (name, args) => (await this.#client.getPrompt({ name, arguments: args })).messages;
}

await run(SCENARIOS, (job, headers) => new Session(job, headers).open());
