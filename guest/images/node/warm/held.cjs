'use strict';
// Node.js that is up and waits for its program: it is started with this file ahead of a script (--require). All that
// Node.js does before the first line of a program is done then, for a program that runs as its own would.
//
// What this needs of Node.js's inner modules it takes from the scopes of public functions, as a debugger does. That holds
// for the version in npm.pins; tests/languages/compared compares programs with the same Node.js outside.

const Module = require('module');
const { Session } = require('inspector');
const path = require('path');
const util = require('util');
const v8 = require('v8');
const vm = require('vm');

// Kinds of records for the host (guest/src/hypercall.rs).
const EXCEPTION = 1;
const RESULT = 2;

/** Returns the value of a variable that a function has from where it was defined. */
function captured(definition, name) {
    const session = new Session();
    session.connect();
    const post = (method, parameters) => {
        let answer;
        session.post(method, parameters, (error, result) => {
            if (error) throw new Error(error.message);
            answer = result;
        });
        return answer;
    };
    const properties = ({ objectId }) => post('Runtime.getProperties', { objectId, ownProperties: true });
    const named = (list, name) => list.find((its) => its.name === name)?.value;
    globalThis.passed = definition;
    const { internalProperties } = properties(post('Runtime.evaluate', { expression: 'passed' }).result);
    const scopes = properties(named(internalProperties, '[[Scopes]]')).result;
    const found = scopes.map((scope) => named(properties(scope.value).result, name)).find((its) => its !== undefined);
    if (found === undefined) throw new Error(`${definition} has no ${name}: is this the version in npm.pins?`);
    const { objectId, unserializableValue, value } = found;
    post('Runtime.callFunctionOn', {
        objectId: scopes[0].value.objectId,
        functionDeclaration: 'function (it) { globalThis.passed = it; }',
        arguments: [objectId ? { objectId } : unserializableValue ? { unserializableValue } : { value }],
    });
    const it = globalThis.passed;
    delete globalThis.passed;
    session.disconnect();
    return it;
}

const inner = captured(Module.runMain, 'require');
const options = captured(inner('internal/options').getOptionValue, 'getCLIOptionsFromBinding')();
const { getTimeOriginTimestamp } = inner('internal/perf/utils');
const { evalTypeScript, readStdin } = inner('internal/process/execution');
const { addBuiltinLibsToObject } = inner('internal/modules/helpers');
const { stripTypeScriptModuleTypes } = inner('internal/modules/typescript');

/** Does what most programs do first, so that it is done. */
function warmUp() {
    const { Console } = require('console');
    const { Writable } = require('stream');
    // All three are pipes, in each machine that goes on from here.
    for (const stream of [process.stdout, process.stderr]) stream.write('');
    const nowhere = new Writable({ write: (chunk, encoding, done) => done() });
    new Console(nowhere).log('%s', 'word', 1, { key: ['value'] });
    stripTypeScriptModuleTypes('const word: string = "";', '/work/a.ts');
    // What is to be done next, by this: a program begins without any.
    process._tickCallback();
}

/** Collects garbage, so that what a program allocates first lies where little else does. */
function collect() {
    v8.setFlagsFromString('--expose-gc');
    const gc = vm.runInNewContext('gc');
    v8.setFlagsFromString('--no-expose-gc');
    gc();
    gc();
}

/** Has this thread's numbers differ from those of all other machines. */
function draw({ seed, skipped }) {
    // It is read at the first draw, and has 31 bits.
    v8.setFlagsFromString(`--random-seed=${(seed % 0x7fffffff) + 1}`);
    for (let left = skipped % 0x4000; left > 0; left--) Math.random();
}

/** Returns type, message and stack of what was thrown. */
function described(thrown) {
    try {
        if (!util.types.isNativeError(thrown)) return [typeof thrown, util.inspect(thrown), `Uncaught ${util.inspect(thrown)}`];
        return [`${thrown.name}`, `${thrown.message}`, `${thrown.stack}`];
    } catch {
        return ['Error', '', ''];
    }
}

/** Has the exception that ends the program told, for the record of its run. */
function tellExceptions() {
    const usual = process._fatalException;
    process._fatalException = function (thrown, isRejection) {
        const isHandled = usual.call(this, thrown, isRejection);
        if (!isHandled) tell(EXCEPTION, ...described(thrown));
        return isHandled;
    };
}

/** Takes back what shows that this file was loaded. */
function hide() {
    delete require.cache[__filename];
    if (process.execArgv[1] === __filename) process.execArgv.splice(0, 2);
    for (const key of Object.keys(Module._pathCache)) delete Module._pathCache[key];
    const value = (options['--require'] = []);
    Object.defineProperty(process, '_preload_modules', { configurable: true, enumerable: true, value, writable: false });
}

/** Has Node.js go on with a program in place of the script that it was started with. It calls Module.runMain next. */
function goOn(run) {
    const usual = Object.getOwnPropertyDescriptor(Module, 'runMain');
    Object.defineProperty(Module, 'runMain', {
        configurable: true,
        get() {
            Object.defineProperty(Module, 'runMain', usual);
            return run;
        },
    });
}

function setWords(execArgv, argv) {
    process.execArgv.splice(0, Infinity, ...execArgv);
    process.argv.splice(1, Infinity, ...argv);
}

/** Returns whether this is a script, whose last expression has a value, and no module. */
function isScript(code) {
    const parses = (text) => new vm.Script(text) !== undefined;
    try {
        return parses(code);
    } catch {
        try {
            return parses(stripTypeScriptModuleTypes(code, '[eval]'));
        } catch {
            return false;
        }
    }
}

/** Has the value of the last expression told in place of printed, when code has run that runs as if by -p. */
function tellResult() {
    // Before anything that the code has left for later.
    process.nextTick(() => {
        const print = process.listeners('exit').at(-1);
        if (print?.name !== 'printResult') return;
        process.off('exit', print);
        process.off('beforeExit', process.listeners('beforeExit').at(-1));
        const result = captured(print, 'result');
        if (result !== undefined) tell(RESULT, 'text/plain', util.inspect(result));
    });
}

function runCode(code, words, isCell) {
    setWords(['-e', code], words);
    options['--eval'] = code;
    Object.defineProperty(process, '_eval', { configurable: true, enumerable: true, value: code, writable: false });
    addBuiltinLibsToObject(globalThis, '<eval>');
    const prints = isCell && isScript(code);
    // As internal/main/eval_string does: the name stands for the module, not for Web Crypto.
    const around = prints ? ['let crypto=require("node:crypto");{', '}'] : ['(crypto=>{{', "}})(require('node:crypto'))"];
    const body = /\bcrypto\b/.test(code) ? around.join(code) : code;
    if (prints) tellResult();
    goOn(evalTypeScript.bind(undefined, '[eval]', body, false, prints || undefined, false));
}

function runInput(words) {
    setWords([], words);
    goOn(readStdin.bind(undefined, evalTypeScript.bind(undefined, '[stdin]')));
}

function runFile(file, words) {
    const script = path.resolve(file);
    setWords([], [script, ...words]);
    goOn(Module.runMain.bind(Module, script));
}

function begin({ argv: [, first, ...rest], isCell }) {
    // The directory may be another.
    process.chdir('.');
    if (process.env.TZ !== undefined) process.env.TZ = process.env.TZ;
    if (first === '-e') runCode(rest[0], rest.slice(rest[1] === '--' ? 2 : 1), isCell);
    else if (first === '-') runInput([first, ...rest]);
    else runFile(first, rest);
}

const native = { exports: {} };
process.dlopen(native, '/usr/lib/sandbox/node.so');
const { wait, endEarly, tell } = native.exports;
const milestones = captured(getTimeOriginTimestamp, 'milestones');
const timeOrigin = captured(getTimeOriginTimestamp, 'NODE_PERFORMANCE_MILESTONE_TIME_ORIGIN_TIMESTAMP');
const { get } = Object.getOwnPropertyDescriptor(process, 'exitCode');
const [fields, hasCode, code] = ['fields', 'kHasExitCode', 'kExitCode'].map((name) => captured(get, name));
warmUp();
collect();
const job = wait();
// A worker's thread loads this file too.
if (job !== undefined) {
    process.reallyExit = endEarly(fields, hasCode, code);
    draw(job);
    // The clock that starts at 0 did so before the machine was saved.
    milestones[timeOrigin] = (Date.now() - performance.now()) * 1000;
    if (job.isReported) tellExceptions();
    begin(job);
}
hide();
