// A conversation is a tree of messages. The children of a message are the versions of what comes
// next, and `current` names the version that is shown. The path of shown messages is what the model
// reads. Messages never change once they are written: an edit is one more version.

const ROOT = 'root';

function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(9));
  return Array.from(bytes, (byte) => byte.toString(36).padStart(2, '0')).join('');
}

function newConversation(model, settings) {
  const root = { id: ROOT, children: [], current: null };
  return {
    id: newId(),
    title: '',
    updated: Date.now(),
    mode: 'chat',
    model,
    system: '',
    settings: { ...settings },
    scores: false,
    nodes: { [ROOT]: root },
  };
}

// The shown messages, the first one first.
function shownPath(conversation) {
  const path = [];
  let node = conversation.nodes[ROOT];
  while (node.current) {
    node = conversation.nodes[node.current];
    path.push(node);
  }
  return path;
}

// The messages before a message.
function ancestors(conversation, node) {
  const path = [];
  let parent = conversation.nodes[node.parent];
  while (parent.id !== ROOT) {
    path.unshift(parent);
    parent = conversation.nodes[parent.parent];
  }
  return path;
}

// Adds a version below a message, and shows it.
function addMessage(conversation, parent, role, fields) {
  const node = { id: newId(), parent, role, text: '', children: [], current: null, ...fields };
  conversation.nodes[node.id] = node;
  conversation.nodes[parent].children.push(node.id);
  conversation.nodes[parent].current = node.id;
  return node;
}

function versions(conversation, node) {
  return conversation.nodes[node.parent].children;
}

// Shows the version that is `step` further; the message that is shown then.
function turnVersion(conversation, node, step) {
  const all = versions(conversation, node);
  const next = all[all.indexOf(node.id) + step];
  if (next) {
    conversation.nodes[node.parent].current = next;
  }
  return conversation.nodes[next ?? node.id];
}

// Removes a version with all that follows it.
function removeMessage(conversation, node) {
  const parent = conversation.nodes[node.parent];
  const place = parent.children.indexOf(node.id);
  parent.children.splice(place, 1);
  parent.current = parent.children[Math.min(place, parent.children.length - 1)] ?? null;
  const doomed = [node.id];
  while (doomed.length > 0) {
    const id = doomed.pop();
    doomed.push(...conversation.nodes[id].children);
    delete conversation.nodes[id];
  }
}

function titleOf(conversation) {
  const first = shownPath(conversation).find((node) => node.text.trim());
  const start = first?.text.trim().split('\n')[0].slice(0, 60);
  return conversation.title || start || 'New conversation';
}
