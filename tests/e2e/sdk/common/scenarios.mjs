// What a client does in each scenario and what it saw; the Python twin is scenarios.py.
//
// `peer` hides the differences between the SDK generations (see client.mjs of each). Nothing is judged here: the driver
// judges the transcripts, the same way for every SDK.

import { createHash } from 'node:crypto';

import * as switchboard from './switchboard.mjs';

const MESSAGE_CHARS_MAX = 200;

const textOf = result => result.content[0].text;
const calls = count => Array.from({ length: count }, (_, index) => index);

async function listTools(peer) {
    const session = await peer.connect();
    return { era: session.era(), tools: await session.listTools() };
}

async function callTool(peer) {
    const session = await peer.connect();
    return {
        echo: await session.call('echo', { text: 'hello \u00e9\u4e16\u{1f9ea} "quoted" \\ \n' }),
        add: await session.call('add', { a: 20, b: 22 }),
        fail: await session.call('fail', {})
    };
}

async function progress(peer) {
    const session = await peer.connect();
    const reports = [];
    const result = await session.call('steps', { count: 5 }, report => {
        reports.push(report);
        return switchboard.record(peer.key, `got ${report.progress}`);
    });
    return { reports, result };
}

async function resources(peer) {
    const session = await peer.connect();
    return {
        resources: await session.listResources(),
        templates: await session.listTemplates(),
        text: await session.read('e2e://note'),
        blob: await session.read('e2e://blob'),
        item: await session.read('e2e://item/seven')
    };
}

async function prompts(peer) {
    const session = await peer.connect();
    return { prompts: await session.listPrompts(), greet: await session.prompt('greet', { name: 'Ada' }) };
}

async function sampling(peer) {
    const session = await peer.connect();
    const result = await session.call('ask_model', { prompt: 'what is 6 times 7?' });
    return { asked: session.asked, result };
}

async function elicitation(peer) {
    const session = await peer.connect();
    const accepted = await session.call('ask_user', { question: 'your colour?' });
    const declined = await session.call('ask_user', { question: 'no, really?' });
    return { asked: session.asked, accepted, declined };
}

async function twoRounds(peer) {
    const session = await peer.connect();
    const result = await session.call('two_rounds', {});
    return { asked: session.asked, result };
}

async function getStream(peer) {
    const session = await peer.connect();
    await switchboard.wait(peer.key, 'backend open GET');
    const result = await session.call('announce', {});
    return { result, notification: await session.notifications.next() };
}

async function getStreamReopened(peer) {
    const session = await peer.connect();
    await switchboard.wait(peer.key, 'client open GET');
    await switchboard.cut(peer.key, 'GET');
    await switchboard.wait(peer.key, 'backend gone GET');
    await switchboard.wait(peer.key, 'backend open GET', { count: 2 });
    const result = await session.call('announce', {});
    return { result, notification: await session.notifications.next() };
}

const interrupted = cutting => async peer => {
    const session = await peer.connect();
    const reports = [];
    const result = await session.call('interrupted', { close: !cutting }, async ({ message }) => {
        reports.push(message);
        if (cutting && message === 'before') await switchboard.cut(peer.key, 'POST tools/call');
    });
    return { reports, result };
};

async function deleteSession(peer) {
    const session = await peer.connect();
    const before = textOf(await session.call('echo', { text: 'alive' }));
    const sessionId = session.sessionId();
    await session.terminate();
    const late = {};
    for (const method of ['POST', 'GET', 'DELETE']) late[method] = await peer.lateRequest(method, sessionId);
    return { before, late };
}

/** The client goes away in the middle of a call, without a word. */
async function leave(peer) {
    const session = await peer.connect();
    let answered = false;
    await new Promise(started => {
        session.call('hold', {}, started).then(
            () => (answered = true),
            () => {}
        );
    });
    await session.close();
    await switchboard.wait(peer.key, 'backend gone POST tools/call');
    await switchboard.record(peer.key, 'release');
    return { answered };
}

/** The client cancels a call; what the wire carries for that depends on the era. */
async function cancel(peer) {
    const session = await peer.connect();
    const stop = new AbortController();
    const call = session.call('hold', {}, () => stop.abort('no longer wanted'), stop.signal);
    await call.then(
        () => {
            throw new Error('the cancelled call was answered');
        },
        () => {}
    );
    await switchboard.wait(peer.key, 'handler cancelled');
    return { 'alive after': await session.call('echo', { text: 'still here' }) };
}

async function bigResult(peer) {
    const session = await peer.connect();
    const text = textOf(await session.call('big', { bytes: 5_000_000 }));
    return { chars: text.length, sha256: createHash('sha256').update(text).digest('hex') };
}

async function bigArgument(peer) {
    const session = await peer.connect();
    const text = calls(125_000)
        .map(index => `${String(index).padStart(7, '0')}\n`)
        .join('');
    return { sent: text.length, same: textOf(await session.call('echo', { text })) === text };
}

async function concurrent(peer) {
    const session = await peer.connect();
    const count = 20;
    const results = await Promise.all(calls(count).map(index => session.call('meet', { count, name: `caller ${index}` })));
    return { answers: results.map(textOf) };
}

async function priming(peer) {
    const session = await peer.connect();
    return { echo: textOf(await session.call('echo', { text: 'after a priming event' })) };
}

async function separators(peer) {
    const session = await peer.connect();
    const reports = [];
    const result = await session.call('separators', {}, ({ message }) => reports.push(message));
    return { reports, result: textOf(result) };
}

async function headers(peer) {
    const session = await peer.connect();
    return { headers: textOf(await session.call('headers', {})) };
}

async function mirrored(peer) {
    const session = await peer.connect();
    await session.listTools();
    return {
        plain: textOf(await session.call('mirrored', { region: 'eu-west-1' })),
        encoded: textOf(await session.call('mirrored', { region: ' Z\u00fcrich' }))
    };
}

async function errors(peer) {
    const session = await peer.connect();
    return {
        'missing resource': await outcome(() => session.read('e2e://nowhere')),
        'missing prompt': await outcome(() => session.prompt('nobody', {})),
        'missing tool': await outcome(() => session.call('nothing', {})),
        'bad argument': await outcome(() => session.call('add', { a: 'x', b: 1 }))
    };
}

async function outcome(attempt) {
    let result;
    try {
        result = await attempt();
    } catch (error) {
        return { code: error.code, message: error.message.slice(0, MESSAGE_CHARS_MAX) };
    }
    return { isError: result.isError, message: textOf(result).slice(0, MESSAGE_CHARS_MAX) };
}

async function jsonAnswers(peer) {
    const session = await peer.connect();
    return {
        tools: (await session.listTools()).map(tool => tool.name),
        echo: await session.call('echo', { text: 'in one piece' }),
        note: await session.read('e2e://note'),
        fail: await session.call('fail', {})
    };
}

async function listen(peer) {
    const session = await peer.connect();
    const subscription = await session.listen();
    const result = await session.call('announce', {});
    const event = await session.notifications.next();
    await subscription.close();
    await switchboard.wait(peer.key, 'backend gone POST subscriptions/listen');
    return { result, event };
}

export const SCENARIOS = {
    'list-tools': listTools,
    'call-tool': callTool,
    progress,
    resources,
    prompts,
    sampling,
    elicitation,
    'two-rounds': twoRounds,
    'get-stream': getStream,
    'get-stream-reopened': getStreamReopened,
    'resume-closed': interrupted(false),
    'resume-broken': interrupted(true),
    'delete-session': deleteSession,
    leave,
    cancel,
    'big-result': bigResult,
    'json-big-result': bigResult,
    'big-argument': bigArgument,
    concurrent,
    priming,
    separators,
    headers,
    mirrored,
    errors,
    'json-answers': jsonAnswers,
    'discover-fallback': listTools,
    listen
};
