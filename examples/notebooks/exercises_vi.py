# %% [markdown]
# # Bài tập: các thí nghiệm đã công bố, dự đoán trước rồi mới đo
#
# Chín thí nghiệm đã công bố, mỗi thí nghiệm gồm ba bước. **Dự đoán**: viết ra điều bạn chờ đợi
# trước khi chạy bất cứ thứ gì; một dự đoán không thể sai thì không dạy ta điều gì. **Đo**: một thí
# nghiệm nhỏ do chính bạn làm. **Kết luận**: các khẳng định của nghiên cứu, mỗi khẳng định theo một
# quy tắc đã định trước, trên mô hình đang có.
#
# Các khẳng định được công bố cho những mô hình khác (GPT-2, BERT). Một khẳng định không đúng trên
# `nano` không phải là lỗi: nó cho biết phát hiện ấy không mở rộng được sang mô hình này. Các câu
# hỏi thì giống nhau cho mọi mô hình: thay `"nano"` bằng `"smollm2"` là hỏi một mô hình thật, và
# chạy lâu hơn. Trên lớp: hãy để mọi người điền dự đoán và so sánh với nhau trước khi chạy ô tiếp
# theo.

# %%
import numpy as np
from IPython.display import HTML

import microtome as mt
from microtome.notebook import html_table

LANG = "vi"
WORDS = ("tên", "khẳng định", "quy tắc", "dự đoán của bạn", "đo được", "kết luận")
model = mt.load("nano")
done = []


def look(name):
    """Câu hỏi của một nghiên cứu, cùng các khẳng định và quy tắc; chưa chạy gì cả."""
    study = mt.studies.find(name)
    texts = study.texts(LANG)
    print(texts("question"))
    rows = [
        (one.name, texts(f"claims.{one.name}.text"), texts(f"claims.{one.name}.rule"))
        for one in study.claims
    ]
    return HTML(html_table(WORDS[:3], rows))


def judge(name, guess):
    """Các khẳng định sau khi đo, cạnh dự đoán cho từng cái: True là đúng, False là không."""
    result = mt.studies.run(name, model=model, lang=LANG)
    found = result.claims()
    assert set(guess) == set(found.index)
    holds = found["holds"]
    judged = [one for one in guess if holds[one] is not None]
    right = sum(guess[one] == holds[one] for one in judged)
    print(f"{right} trong {len(judged)} dự đoán kết luận được của bạn là đúng.")
    for caveat in result.document.caveats:
        print(f"Lưu ý: {caveat}")
    done.append(name)
    rows = [(one.claim, guess[index], one.measured, one.verdict) for index, one in found.iterrows()]
    return HTML(html_table((WORDS[1], *WORDS[3:]), rows))


# %% [markdown]
# ## 1. Vặn nhỏ một tầng
#
# Nhân mọi điều một tầng nói ra với 0.6. **Ở tầng nào điều đó làm hàm mất mát của từ đúng tăng
# nhiều nhất?**

# %%
look("hidden-scaling")

# %% [markdown]
# **Dự đoán của bạn**: `True` hoặc `False` cho mỗi khẳng định, và một con số cho câu hỏi ở trên.
# Các giá trị dưới đây chỉ để giữ chỗ; hãy thay chúng.

# %%
my_layer = 0
guess = {"shift": True, "early": True, "most": True, "growth": True, "temperature": True}

# %%
prompt = mt.Prompt("I have no special talents. I am only passionately", target=" curious")
scaled = mt.sweep(model, prompt, "scale(0.6) L*.resid_post", metrics="loss")
loss = scaled.delta("loss").isel(prompt=0)
layer = int(loss.argmax("layer"))
print(f"Nhiều nhất ở tầng {layer}: {float(loss[layer]):+.3f} nat. Dự đoán của bạn: {my_layer}.")
print(f"Ở tầng cuối: {float(loss[-1]):+.1e}, vì lớp chuẩn hóa phía sau xóa đi mọi phép co giãn.")
assert abs(float(loss[-1])) < 1e-2
scaled.figure()

# %%
judge("hidden-scaling", guess)

# %% [markdown]
# ## 2. Ghi đè kích hoạt
#
# Yếu đi mười lần, hay mạnh lên mười lần: **làm với trạng thái ẩn của một tầng, cái nào khiến xác
# suất của từ đúng giảm nhiều hơn, tính trung bình trên các tầng: 0.1 hay 10?**

# %%
look("replace-activations")

# %% [markdown]
# **Dự đoán của bạn**: `True` hoặc `False` cho mỗi khẳng định, và một con số cho câu hỏi ở trên.
# Các giá trị dưới đây chỉ để giữ chỗ; hãy thay chúng.

# %%
my_factor = 10.0
guess = {"growth": True, "collapse": True, "compress": True}

# %%
prompt = mt.Prompt("Berlin is the capital of", target=" Germany")
strengths = {"factor": [0.1, 10.0]}
scaled = mt.sweep(model, prompt, mt.scale("L*.resid_post", 1.0), metrics="prob", over=strengths)
cost = -scaled.delta("prob").isel(prompt=0).mean("layer")
worse = float(cost["factor"][cost.argmax("factor")])
for factor in strengths["factor"]:
    print(f"× {factor:g}: xác suất giảm trung bình {float(cost.sel(factor=factor)):.3f}")
print(f"Tệ hơn: {worse:g}. Dự đoán của bạn: {my_factor:g}.")
scaled.figure()

# %%
judge("replace-activations", guess)

# %% [markdown]
# ## 3. Tắt một đầu chú ý bằng cách nào
#
# Thay điều một đầu chú ý nói bằng số 0, hay bằng trung bình của nó? **Hai bản đồ tương quan mạnh
# đến đâu, từ −1 đến 1?**

# %%
look("ablation-methods")

# %% [markdown]
# **Dự đoán của bạn**: `True` hoặc `False` cho mỗi khẳng định, và một con số cho câu hỏi ở trên.
# Các giá trị dưới đây chỉ để giữ chỗ; hãy thay chúng.

# %%
my_correlation = 0.5
guess = {"coincide": True, "unspaced": True, "tighter": True}

# %%
prompt = mt.Prompt("Berlin is the capital of", target=" Germany")
maps = [
    mt.sweep(model, prompt, f"{how} L*.z.h*", metrics="logprob").delta("logprob").values.ravel()
    for how in ("zero", "mean")
]
r = float(np.corrcoef(*maps)[0, 1])
assert -1 <= r <= 1
print(f"r = {r:.3f} trên {len(maps[0])} đầu chú ý. Dự đoán của bạn: {my_correlation:g}.")

# %%
judge("ablation-methods", guess)

# %% [markdown]
# ## 4. Có đầu nào một mình giữ sự kiện?
#
# Tắt lần lượt từng đầu chú ý. **Thiếu bao nhiêu đầu trong số đó thì lựa chọn đầu của mô hình là
# một từ khác?**

# %%
look("head-ablation")

# %% [markdown]
# **Dự đoán của bạn**: `True` hoặc `False` cho mỗi khẳng định, và một con số cho câu hỏi ở trên.
# Các giá trị dưới đây chỉ để giữ chỗ; hãy thay chúng.

# %%
my_count = 3
guess = {"scattered": True, "contrast": True, "top1": True, "means": True, "agree": True}

# %%
prompt = mt.Prompt("Berlin is the capital of", target=" Germany")
silenced = mt.sweep(model, prompt, "zero L*.z.h*", metrics=["prob", "top1"])
words = silenced.data["top1_token"].values.ravel()
others = [word for word in words if word != silenced.data["clean_top1_token"].item()]
assert len(others) < len(words)
print(f"{len(others)} trong {len(words)} đầu. Dự đoán của bạn: {my_count}.")
print(f"Nó nói thay vào đó: {sorted(set(others))}")
silenced.figure("prob")

# %%
judge("head-ablation", guess)

# %% [markdown]
# ## 5. Mọi đầu của một tầng, hay trạng thái của nó?
#
# Thay trạng thái ẩn của token cuối bằng trạng thái trong câu mà người kia tặng quà. **Từ tầng nào
# trở đi câu trả lời bị đảo?**

# %%
look("ioi-levels")

# %% [markdown]
# **Dự đoán của bạn**: `True` hoặc `False` cho mỗi khẳng định, và một con số cho câu hỏi ở trên.
# Các giá trị dưới đây chỉ để giữ chỗ; hãy thay chúng.

# %%
my_layer = 3
guess = {"flips": True, "never": True}

# %%
gift = mt.Prompt(
    "When Sam and Sally went to the park, Sam gave a gift to",
    donor="When Sam and Sally went to the park, Sally gave a gift to",
    target=" Sally",
    contrast=" Sam",
)
patched = mt.sweep(model, gift, "patch L*.resid_post@-1", metrics="logit_diff")
score = patched.data["logit_diff"].isel(prompt=0).values
turned = [n for n in range(len(score)) if (score[n:] < 0).all()]
print(f"Bị đảo từ tầng {turned[0] if turned else None} trở đi. Dự đoán của bạn: {my_layer}.")
donor = model.run(mt.Prompt(gift.donor, target=gift.target, contrast=gift.contrast))
assert abs(score[-1] - donor.measure("logit_diff")["clean"].item()) < 1e-3
patched.figure()

# %%
judge("ioi-levels", guess)

# %% [markdown]
# ## 6. Một đầu chú ý im lặng
#
# Sau mỗi tầng, các token của một câu giống nhau đến đâu? **Ở tầng nào chúng giống nhau nhất
# (cosine trung bình của mọi cặp)?**

# %%
look("cosine-ripple")

# %% [markdown]
# **Dự đoán của bạn**: `True` hoặc `False` cho mỗi khẳng định, và một con số cho câu hỏi ở trên.
# Các giá trị dưới đây chỉ để giữ chỗ; hãy thay chúng.

# %%
my_layer = 5
guess = {"falls": True, "rises": True, "delayed": True}

# %%
sentence = "I have no special talents. I am only passionately curious"
states = model.run(sentence, keep="L*.resid_post")["L*.resid_post"].isel(prompt=0).values
unit = states / np.linalg.norm(states, axis=-1, keepdims=True)
pairs = np.triu_indices(states.shape[1], 1)
alike = [float((layer @ layer.T)[pairs].mean()) for layer in unit]
most = int(np.argmax(alike))
for number, value in enumerate(alike):
    print(f"tầng {number}: {value:.3f}")
print(f"Giống nhau nhất ở tầng {most}. Dự đoán của bạn: {my_layer}.")
assert max(map(abs, alike)) <= 1

# %%
judge("cosine-ripple", guess)

# %% [markdown]
# ## 7. Một đầu chú ý, một token
#
# Bây giờ chỉ một đầu chú ý, chỉ tại token cuối. **Bao nhiêu đầu tự mình đảo được câu trả lời?**

# %%
look("ioi-head-token")

# %% [markdown]
# **Dự đoán của bạn**: `True` hoặc `False` cho mỗi khẳng định, và một con số cho câu hỏi ở trên.
# Các giá trị dưới đây chỉ để giữ chỗ; hãy thay chúng.

# %%
my_count = 1
guess = {"tiny": True, "late": True, "both_ways": True, "equation": True}

# %%
heads = mt.sweep(model, gift, "patch L*.z.h*@-1", metrics="logit_diff")
score = heads.data["logit_diff"].isel(prompt=0)
alone = np.argwhere(score.values < 0).tolist()
print(f"{len(alone)} trong {score.size} đầu. Dự đoán của bạn: {my_count}.")
print(f"Tầng và đầu của chúng: {alone}")
heads.figure()

# %%
judge("ioi-head-token", guess)

# %% [markdown]
# ## 8. Một đầu chú ý, một từ
#
# “Peanut butter and pineapple taste great on pizza.” **Sau tầng cuối, trạng thái của từ nào gần
# với “pizza” hơn: “pineapple” hay “butter”?**

# %%
look("pineapple-pizza")

# %% [markdown]
# **Dự đoán của bạn**: `True` hoặc `False` cho mỗi khẳng định, và một con số cho câu hỏi ở trên.
# Các giá trị dưới đây chỉ để giữ chỗ; hãy thay chúng.

# %%
my_word = "pineapple"
guess = {"nearer": True, "nowhere": True}

# %%
words = {"pineapple": "pineapple", "butter": "butter", "pizza": "pizza"}
pizza = mt.Prompt("Peanut butter and pineapple taste great on pizza", roles=words)
run = model.run(pizza, keep="L-1.resid_post")
tokens = run.encoded[0].tokens
states = run["L-1.resid_post"].isel(prompt=0).values
dish = states[tokens.role("pizza")]
near = {}
for word in ("pineapple", "butter"):
    own = states[tokens.role(word)]
    near[word] = float(own @ dish / np.linalg.norm(own) / np.linalg.norm(dish))
    print(f"{word}: cosine {near[word]:.3f}")
print(f"Gần hơn: {max(near, key=near.get)}. Dự đoán của bạn: {my_word}.")
assert max(map(abs, near.values())) <= 1

# %%
judge("pineapple-pizza", guess)

# %% [markdown]
# ## 9. BERT nhiễu
#
# Thí nghiệm cuối trong chín thí nghiệm nói về một *mô hình mã hóa*, loại mô hình điền vào chỗ bị
# che; `nano` thì dự đoán từ tiếp theo, và nghiên cứu sẽ nói rõ điều đó. Khi có mạng:
# `mt.studies.run("noisy-bert", model="bert-large-uncased")`.

# %%
look("noisy-bert")

# %%
refused = ""
try:
    mt.studies.run("noisy-bert", model=model)
except mt.MicrotomeError as error:
    refused = str(error)
print(refused)
assert "masked" in refused

# %% [markdown]
# Nhưng câu hỏi của nó có thể đặt ra cho mọi mô hình, tại token mà nó dự đoán. Hãy xáo trộn các tọa
# độ của trạng thái token cuối ở một tầng: mọi con số còn nguyên, chỉ đổi thứ tự. **Ở những tầng
# nào câu trả lời còn sót lại? Ở bao nhiêu tầng nó vẫn là lựa chọn đầu của mô hình?**

# %%
my_count = 1

# %%
prompt = mt.Prompt("Berlin is the capital of", target=" Germany")
shuffled = mt.sweep(model, prompt, "shuffle L*.resid_post@-1", metrics=["prob", "rank"])
rank = shuffled.data["rank"].isel(prompt=0).values
print(f"Vẫn đứng đầu ở {(rank == 1).sum()} trong {len(rank)} tầng. Dự đoán của bạn: {my_count}.")
shuffled.figure("prob")

# %% [markdown]
# ## Còn lại
#
# Các nghiên cứu khác bắt đầu theo cùng một cách.

# %%
left = [name for name in mt.studies.STUDIES if name not in (*done, "noisy-bert")]
for name in left:
    print(f"{name}: {mt.studies.find(name).texts(LANG)('question')}")
assert left

# %% [markdown]
# **Để suy nghĩ.** Với khẳng định nào bạn chắc chắn nhất mà lại sai? Bạn phải sửa điều gì trong
# hình dung của mình về transformer? Một khẳng định không đúng trên `nano` vẫn có thể đúng trên mô
# hình lớn hơn: `mt.studies.compare("ioi-levels", ["nano", "smollm2"])` đặt nhiều mô hình cạnh
# nhau.
